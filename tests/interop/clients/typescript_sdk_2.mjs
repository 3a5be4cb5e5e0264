// The official TypeScript client 2.x, which has no WebSocket transport: its public Transport over one, below.
//
//   node typescript_sdk_2.mjs URL legacy|auto|pinned|prior|HANDSHAKE_VERSION      (in the directory that has node_modules)

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { close, converse } from "./conversation.mjs";

const require = createRequire(pathToFileURL(`${process.cwd()}/package.json`));
const { Client } = require("@modelcontextprotocol/client");

const MODERN = "2026-07-28";

class WebSocketTransport {
    constructor(url) {
        this.url = url;
    }

    start() {
        return new Promise((resolve, reject) => {
            this.socket = new WebSocket(this.url, "mcp");
            this.socket.onopen = () => resolve();
            this.socket.onerror = (event) => {
                reject(event.error ?? new Error("the WebSocket failed"));
                this.onerror?.(event.error);
            };
            this.socket.onclose = () => this.onclose?.();
            this.socket.onmessage = (event) => this.onmessage?.(JSON.parse(event.data));
        });
    }

    async send(message) {
        this.socket.send(JSON.stringify(message));
    }

    async close() {
        this.socket.close();
    }
}

async function connect(options, extra) {
    const client = new Client({ name: "typescript-sdk-2", version: "1" }, options);
    client.onerror = (error) => {
        throw error;
    };
    await client.connect(new WebSocketTransport(url), extra);
    return client;
}

const [url, mode] = process.argv.slice(2);
let client;
if (mode === "legacy" || mode === "auto") {
    client = await connect({ versionNegotiation: { mode } });
} else if (mode === "pinned") {
    client = await connect({ versionNegotiation: { mode: { pin: MODERN } } });
} else if (mode === "prior") {
    const scout = await connect({ versionNegotiation: { mode: "auto" } });
    const discover = scout.getDiscoverResult();
    await close(scout);
    client = await connect({}, { prior: { kind: "modern", discover } });
} else {
    client = await connect({ supportedProtocolVersions: [mode], versionNegotiation: { mode: "legacy" } });
}
if (client.getNegotiatedProtocolVersion() !== MODERN) await client.ping();
const report = await converse(client, "typescript-sdk-2");
const protocol = client.getNegotiatedProtocolVersion();
await close(client);
console.log(JSON.stringify({ protocol, ...report }));
