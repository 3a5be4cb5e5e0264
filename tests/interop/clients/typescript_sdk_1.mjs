// The official TypeScript client 1.x: its own WebSocket transport.
//
//   node typescript_sdk_1.mjs URL legacy      (in the directory that has node_modules)

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { close, converse } from "./conversation.mjs";

const require = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
const { Client } = require("@modelcontextprotocol/sdk/client/index.js");
const { WebSocketClientTransport } = require("@modelcontextprotocol/sdk/client/websocket.js");

const [url, mode] = process.argv.slice(2);
if (mode !== "legacy") throw new Error(`the TypeScript client 1.x has no mode ${mode}`);

const transport = new WebSocketClientTransport(new URL(url));
transport.setProtocolVersion = (version) => {
    transport.agreed = version;
};
const client = new Client({ name: "typescript-sdk-1", version: "1" });
await client.connect(transport);
await client.ping();
const report = await converse(client, "typescript-sdk-1");
await close(client);
console.log(JSON.stringify({ protocol: transport.agreed, ...report }));
