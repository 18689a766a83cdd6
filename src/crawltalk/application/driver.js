/* A person at the product's page who asks, clicks every link of the answer, and, if asked whether to leave, says no; or yes, if `confirms`. */
async ({ settings, prompts, confirms }) => {
  const { begin, say, session } = await import("/static/js/session.js");
  const { read } = await import("/static/js/attachments.js");
  const { path } = await import("/static/js/conversations.js");
  const until = async holds => {
    for (let waited = 0; !holds(); waited += 10) {
      if (waited > 10_000) throw new Error("the page does not go on");
      await new Promise(done => setTimeout(done, 10));
    }
  };
  const drawn = () => until(() => !session.running && !document.querySelector(".thread .cursor")
    && document.querySelectorAll(".thread .message").length === path(session.conversation).length);
  const answers = [];
  for (const { says, files, picture } of prompts) {
    begin();
    let problem = "";
    for (const text of says) {
      const documents = [];
      try {
        if (text === says[0]) {
          for (const { name, content } of files) documents.push(await read(new File([content], name)));
          if (picture) documents.push(await read(new File([Uint8Array.from(atob(picture), one => one.charCodeAt(0))], "tides.png", { type: "image/png" })));
        }
        await say(path(session.conversation).at(-1)?.id ?? 0, { role: "user", content: text, ...(documents.length ? { documents } : {}) }, settings);
      } catch (error) {
        problem = error.message;
      }
      await drawn();
      const answer = [...document.querySelectorAll(".thread .message.assistant")].at(-1);
      for (const link of answer.querySelectorAll(".prose a[href]")) link.click();
      for (const button of answer.querySelectorAll("button.leave")) {
        button.click();
        await until(() => document.querySelector(".leaving"));
        document.querySelector(`.leaving ${confirms ? "a" : "button"}`).click();
        await until(() => !document.querySelector(".leaving"));
      }
      for (const button of confirms ? document.querySelectorAll(".withheld button") : []) {
        button.click();
        await drawn();
      }
    }
    const nodes = path(session.conversation);
    answers.push({
      problem: problem || nodes.map(node => node.problem).filter(Boolean).join("; "),
      text: nodes.filter(node => node.role === "assistant").map(node => node.content).join(""),
      calls: nodes.flatMap(node => node.calls ?? []).map(({ id, function: called }) => ({ id, type: "function", function: called })),
      results: nodes.filter(node => node.role === "tool").map(({ name, content, withheld }) => ({ name, content, withheld: withheld ?? null })),
      links: [...document.querySelectorAll(".thread .prose a[href]")].map(link => link.href),
      asked: document.querySelectorAll(".thread button.leave").length,
      shown: document.querySelector(".thread")?.innerText ?? "",
    });
  }
  return answers;
}
