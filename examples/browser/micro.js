// Calls and streams of a service over WebSocket, as docs/transport-websocket.md has them. There is nothing else to it.

const socket = () => new WebSocket(location.origin.replace(/^http/, "ws"), "micro.json.v1");

let calls, last = 0; // one WebSocket for all calls, and the calls that wait for their reply
const waiting = new Map();

// call gives the answer of an endpoint; it fails with the service's error: {code, detail, status, id}.
export function call(endpoint, body) {
  return new Promise((resolve, reject) => {
    const id = ++last;
    waiting.set(id, { resolve, reject });
    const send = () => calls.send(JSON.stringify({ kind: "call", id, endpoint, body }));
    if (calls?.readyState === WebSocket.OPEN) return send();
    if (calls?.readyState !== WebSocket.CONNECTING) connect();
    calls.addEventListener("open", send);
  });
}

function connect() {
  calls = socket();
  calls.onmessage = ({ data }) => {
    const { kind, id, body, error } = JSON.parse(data);
    if (kind !== "reply") return; // goaway: the service shuts down, and closes the WebSocket when it has answered
    const w = waiting.get(id);
    waiting.delete(id);
    error ? w?.reject(error) : w?.resolve(body);
  };
  calls.onclose = ({ reason }) => {
    for (const w of waiting.values()) w.reject({ code: 503, detail: reason || "the connection has ended" });
    waiting.clear();
  };
}

// stream opens a stream, on a WebSocket of its own: send and end are this side's, "for await" reads the other's. Leaving that
// loop early cancels the stream.
export function stream(endpoint) {
  const ws = socket(), id = 1, queue = [];
  let wake, ended, failed;
  const on = (f) => (event) => { f(event); wake?.(); };
  const send = (m) => ws.readyState === WebSocket.CONNECTING ? ws.addEventListener("open", () => send(m)) : ws.send(JSON.stringify({ ...m, id }));
  ws.onmessage = on(({ data }) => {
    const { kind, body, error } = JSON.parse(data);
    if (kind === "data") queue.push(body);
    if (kind === "end") { ended = true; failed = error; ws.close(); }
  });
  ws.onclose = on(({ reason }) => { failed ??= ended ? undefined : { code: 503, detail: reason || "the connection has ended" }; ended = true; });
  send({ kind: "open", endpoint });
  return {
    send: (body) => send({ kind: "data", body }),
    end: () => send({ kind: "end" }),
    async *[Symbol.asyncIterator]() {
      try {
        for (;;) {
          while (queue.length) yield queue.shift();
          if (ended && failed) throw failed;
          if (ended) return;
          await new Promise((resolve) => { wake = resolve; });
        }
      } finally {
        if (!ended) send({ kind: "cancel" });
      }
    },
  };
}
