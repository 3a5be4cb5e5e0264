// The conversation that all the clients hold, for both TypeScript clients, which differ in how they connect only.

export async function converse(client, name) {
    const listed = await client.listTools();
    const call = (tool, args = {}) => client.callTool({ name: tool, arguments: args });
    const report = {
        server: client.getServerVersion(),
        capabilities: client.getServerCapabilities(),
        instructions: client.getInstructions(),
        tools: listed.tools,
        log: await call("logger_log", { component: name, level: "INFO", message: "hello" }),
        query: await call("logger_query", { component: name, limit: 1 }),
        status: await call("logger_status"),
        bad_arguments: await call("logger_log", { component: 7, level: "LOUD" }),
    };
    try {
        await call("logger_lag");
    } catch (refused) {
        report.unknown_tool = { code: refused.code, message: refused.message };
    }
    return report;
}

// Resolve when the other end has answered our close; a process that just ends would prove nothing.
export async function close(client) {
    const closed = new Promise((resolve) => {
        client.onclose = resolve;
    });
    await client.close();
    await closed;
}
