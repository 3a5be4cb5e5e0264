// Writes the JSON Schemas of the MCP specification, which the conformance suite carries as literals in its one
// bundled file, to DIRECTORY/<version>.json. Node, because they are literals of JavaScript and not of JSON.
//
//   node schemas.mjs DIRECTORY      (in the directory that has node_modules)

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runInNewContext } from "node:vm";

const SUITE = "node_modules/@modelcontextprotocol/conformance/dist/index.js";
const VERSIONS = ["2025-03-26", "2025-06-18", "2025-11-25", "2026-07-28"];

const directory = process.argv[2];
const source = readFileSync(SUITE, "utf8");

// The table that the suite itself validates with: {"2025-03-26":A,"2025-06-18":B,"2025-11-25":C,[LATEST]:D}
const table = /\{"2025-03-26":([\w$]+),"2025-06-18":([\w$]+),"2025-11-25":([\w$]+),\[[\w$]+\]:([\w$]+)\}/.exec(source);
if (table === null) throw new Error(`${SUITE}: the table of schemas is not where it was; see schemas.mjs`);

mkdirSync(directory, { recursive: true });
VERSIONS.forEach((version, index) => {
    const begin = source.indexOf(`${table[index + 1]}={$schema:`) + table[index + 1].length + 1;
    const schema = runInNewContext(`(${literal(begin)})`);
    const types = schema.$defs ?? schema.definitions;
    if (!("CallToolResult" in types) || ("DiscoverResult" in types) !== (version === "2026-07-28")) {
        throw new Error(`${SUITE}: what was found for ${version} is not its schema`);
    }
    writeFileSync(join(directory, `${version}.json`), JSON.stringify(schema));
});

// Return the object literal that begins at an offset; braces inside of strings do not count.
function literal(begin) {
    let depth = 0;
    for (let at = begin; at < source.length; at += 1) {
        const character = source[at];
        if ("`'\"".includes(character)) {
            for (at += 1; source[at] !== character; at += 1) if (source[at] === "\\") at += 1;
        } else if (character === "{") {
            depth += 1;
        } else if (character === "}") {
            depth -= 1;
            if (depth === 0) return source.slice(begin, at + 1);
        }
    }
    throw new Error(`${SUITE}: the literal at ${begin} does not end`);
}
