/* The server: JSON, and streams of server-sent events. Every error is one line that a person can act on. */

/* The key of a server that asks for one, as long as the tab is open. */
export const key = {
  read: () => sessionStorage.getItem("crawltalk.key"),
  write: value => sessionStorage.setItem("crawltalk.key", value),
};

async function send(path, { headers = {}, ...options }) {
  if (key.read()) headers.authorization = `Bearer ${key.read()}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Error("The server does not answer. Is `crawltalk serve` still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) dispatchEvent(new Event("keywanted"));
  const body = await response.json().catch(() => null);
  throw new Error(body?.error?.message ?? `The server answered ${response.status}. Its terminal says why.`);
}

const asJson = (body, signal) => ({ method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), signal });

export async function get(path, query = {}, signal) {
  const filled = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return (await send(filled.length ? `${path}?${new URLSearchParams(filled)}` : path, { signal })).json();
}

export async function post(path, body, signal) {
  return (await send(path, asJson(body, signal))).json();
}

/* A file as it is. */
export async function upload(path, query, file) {
  return (await send(`${path}?${new URLSearchParams(query)}`, { method: "POST", body: file })).json();
}

/* The chunks of a streamed answer. Leaving the loop, or aborting the signal, ends the answer on the server too. */
export async function* stream(path, body, signal) {
  const response = await send(path, asJson({ ...body, stream: true, stream_options: { include_usage: true } }, signal));
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        const data = event.split("\n").filter(line => line.startsWith("data:")).map(line => line.slice(5)).join("\n").trim();
        if (!data) continue; // a comment that keeps the connection open
        if (data === "[DONE]") return;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message);
        yield chunk;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

export const models = () => get("/v1/models").then(answer => answer.data);
