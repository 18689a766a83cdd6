"""The page that people use, in a browser over a run."""

import json
import re
import shutil
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from playwright.sync_api import expect

from crawltalk.engine.sampling import Sampling, distribution
from crawltalk.pipeline import stages
from crawltalk.recipe.layers import load_recipe
from crawltalk.run.folder import RunFolder
from crawltalk.serve import Settings
from crawltalk.serve.ui.browse import MAX_ROWS, list_pages
from support.browsing import answer_with, page_of_a_model, say, wait_for_answer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(nano, tmp_path_factory):
    """A copy of the run, with another one beside it."""
    runs = tmp_path_factory.mktemp("ui")
    shutil.copytree(nano, runs / "nano")
    shutil.copytree(nano, runs / "other", ignore=shutil.ignore_patterns("crawl", "data"))
    return runs / "nano"


@pytest.fixture(scope="module")
def site(run):
    """The address of a server."""
    command = [sys.executable, "-m", "crawltalk", "serve", str(run), "--port", "0", "--tools", "calculator"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    yield server.stdout.readline().strip().rstrip("/")
    server.terminate()
    server.communicate(timeout=60)


@pytest.fixture
def tab(chromium, site):
    """A page of the site. Requests to other hosts and errors in the page fail the test."""
    context = chromium.new_context(base_url=site, viewport={"width": 1280, "height": 800})
    context.add_init_script(
        "window.refused = []; addEventListener('securitypolicyviolation', e => refused.push(e.blockedURI))"
    )
    tab = context.new_page()
    tab.set_default_timeout(20_000)
    tab.requests, tab.complaints = [], []
    tab.on("request", lambda request: tab.requests.append(request.url))
    tab.on(
        "console",
        lambda message: tab.complaints.append(message.text) if message.type in ("error", "warning") else None,
    )
    tab.on("pageerror", lambda error: tab.complaints.append(str(error)))
    yield tab
    assert [url for url in tab.requests if not url.startswith(site)] == []
    assert tab.complaints == []
    context.close()


def keep(tab, **values):
    """Set what the browser keeps of the chat's settings."""
    tab.goto("/")
    tab.evaluate("values => localStorage.setItem('crawltalk.settings', JSON.stringify(values))", values)
    tab.reload()
    tab.get_by_role("button", name="What is").first.wait_for()


def test_chat_streams_an_answer_and_keeps_it_after_a_reload(tab):
    keep(tab, temperature=0)
    say(tab, "What is gold?")
    wait_for_answer(tab)
    answer = tab.locator(".message.assistant .prose").inner_text()
    assert answer
    assert tab.get_by_role("status").inner_text() == answer  # what a screen reader says
    tab.reload()
    tab.get_by_role("navigation", name="Conversations").get_by_role(
        "button", name="What is gold?", exact=True
    ).click()
    assert tab.locator(".message.assistant .prose").inner_text() == answer
    assert tab.locator(".message.user .said").inner_text() == "What is gold?"


STALLING_LINE = """() => {
  const fetch = window.fetch;
  const letters = event => {
    const chunk = event.startsWith("data: {") ? JSON.parse(event.slice(6)) : {};
    const text = chunk.choices?.[0]?.delta?.content ?? "";
    const saying = content => ({ ...chunk, choices: [{ index: 0, delta: { content }, finish_reason: null }] });
    return text ? [...text].map(letter => `data: ${JSON.stringify(saying(letter))}\\n\\n`) : [event];
  };
  window.fetch = async (address, options) => {
    const events = (await (await fetch(address, options)).text()).split(/(?<=\\n\\n)/).flatMap(letters);
    const half = events.length / 2;
    return new Response(new ReadableStream({
      async pull(out) {
        if (events.length > half) return out.enqueue(new TextEncoder().encode(events.shift()));
        while (!options.signal.aborted) await new Promise(done => setTimeout(done, 10));
        out.error(options.signal.reason);
      },
    }));
  };
}"""
"""Half of an answer comes, letter by letter since a busy server sends it in one piece, and no more until it is stopped:
a model of the tests' size is done before anybody can."""


def test_an_answer_is_stopped_and_another_one_asked_for(tab):
    keep(tab, temperature=2, seed="1")
    tab.evaluate(STALLING_LINE)
    say(tab, "Tell me a long story.")
    answer = tab.locator(".message.assistant .prose")
    tab.locator(".message.assistant .prose:not(:empty)").wait_for()
    tab.keyboard.press("Escape")
    tab.get_by_text("stopped", exact=True).wait_for()
    stopped = answer.inner_text()
    keep(tab, temperature=2, seed="1")
    tab.get_by_role("button", name="Tell me a long story.", exact=True).click()
    tab.get_by_role("button", name="Regenerate").click()
    expect(tab.get_by_text("Version 2 of 2")).to_be_visible()
    wait_for_answer(tab)
    assert len(answer.inner_text()) > len(stopped) > 0
    tab.get_by_role("button", name="Version before").click()
    expect(answer).to_have_text(stopped)


def test_an_edited_message_is_a_branch_and_the_other_one_stays(tab):
    keep(tab, temperature=0)
    for text in ("Hello", "What is iron?"):
        say(tab, text)
        wait_for_answer(tab)
    tab.get_by_role("button", name="Edit").first.click()
    tab.get_by_label("Edit the message").fill("Who are you?")
    tab.get_by_label("Edit the message").press("Enter")
    wait_for_answer(tab)
    said = tab.locator(".message.user .said")
    assert said.all_inner_texts() == ["Who are you?"]
    assert tab.get_by_text("Version 2 of 2").is_visible()
    tab.reload()
    tab.get_by_role("button", name="Who are you?", exact=True).click()
    tab.get_by_role("button", name="Version before").first.click()
    assert said.all_inner_texts() == ["Hello", "What is iron?"]


def test_conversations_are_renamed_and_deleted(tab):
    keep(tab, temperature=0)
    say(tab, "Hello")
    wait_for_answer(tab)
    history = tab.get_by_role("navigation", name="Conversations")
    history.get_by_role("button", name="Hello", exact=True).hover()
    history.get_by_role("button", name="Rename “Hello”").click()
    tab.get_by_label("Name of the conversation").fill("Greetings")
    tab.get_by_label("Name of the conversation").press("Enter")
    tab.reload()
    history.get_by_role("button", name="Greetings", exact=True).hover()
    tab.on("dialog", lambda dialog: dialog.accept())
    history.get_by_role("button", name="Delete “Greetings”").click()
    assert history.get_by_role("listitem").count() == 0
    assert tab.evaluate("Object.keys(localStorage).filter(key => key.includes('conversation.'))") == []


HOSTILE = """# <script>window.hacked = 1</script> heading
![a](https://evil.example/a.png) <img src="https://evil.example/b.png" onerror="window.hacked = 1">
<link rel="prefetch" href="https://evil.example/c">
<style>@import url("https://evil.example/d.css"); body { display: none }</style>

<form action="https://evil.example/e"><input name="q"><button>Go</button></form>
<meta http-equiv="refresh" content="0;url=https://evil.example/f"><base href="https://evil.example/">
<iframe src="https://evil.example/g" srcdoc="<script>parent.hacked = 1</script>"></iframe><object data="https://evil.example/h"></object>
<script>window.hacked = 1; fetch("https://evil.example/i")</script><svg onload="window.hacked = 1"><image href="https://evil.example/j"/></svg>

[one](javascript:window.hacked=1) [two](data:text/html,<script>window.hacked=1</script>) [three](/api/runs)
[four](JaVaScRiPt:1)
[five](https://good.example/page) [six](file:///etc/passwd) <javascript:window.hacked=1>
[seven](vbscript:1) [eight][ref] ![nine][ref]

[ref]: https://evil.example/k "&quot; onmouseover=window.hacked=1"

| <img src=x onerror="window.hacked=1"> | b |
|---|---|
| <svg/onload=window.hacked=1> | &lt;script&gt;window.hacked=1&lt;/script&gt; |

- [ ] <details open ontoggle="window.hacked = 1">

```html onload="window.hacked=1"
<img src="https://evil.example/l" onerror="window.hacked = 1">
```
"""


ALLOWED = {
    *(
        "p",
        "div",
        "h3",
        "h4",
        "h5",
        "h6",
        "br",
        "hr",
        "a",
        "ul",
        "ol",
        "li",
        "strong",
        "em",
        "del",
        "blockquote",
    ),
    *("table", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "pre", "code", "span", "button"),
}


def test_a_hostile_answer_fetches_nothing_and_runs_nothing(tab, site):
    answer_with(tab, [{"content": HOSTILE[start : start + 40]} for start in range(0, len(HOSTILE), 40)])
    keep(tab)
    say(tab, HOSTILE)
    wait_for_answer(tab)
    tab.locator("figure.code .syntax-tag").first.wait_for()
    tab.get_by_role("link", name="five").hover()
    elements = tab.evaluate(
        "[...new Set([...document.querySelectorAll('.thread *')].map(one => one.tagName.toLowerCase()))]"
    )
    assert set(elements) <= ALLOWED | {"h2", "button", "span"}  # and the controls around an answer
    links = tab.evaluate("[...document.querySelectorAll('.thread a')].map(a => [a.href, a.rel])")
    assert links
    assert all(
        re.match("https://(evil|good)[.]example/", href) and rel == "noopener noreferrer"
        for href, rel in links
    )
    attributes = tab.evaluate(
        "[...document.querySelectorAll('.thread *')].flatMap(one => [...one.attributes].map(each => each.name))"
    )
    assert not {name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset")}
    assert tab.evaluate("window.hacked") is None
    assert tab.evaluate("refused") == []
    assert [url for url in tab.requests if "example" in url] == []
    tab.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'https://evil.example/control.png'}))"
    )
    # the watch sees what it is there for, and the server forbids it
    tab.wait_for_function("refused.length === 1")
    tab.complaints.clear()
    tab.requests.clear()


RENDER = """async texts => {
  const { html, render } = await import('/static/js/ui.js');
  const { Markdown } = await import('/static/js/markdown.js');
  return texts.flatMap(text => {
    const place = document.createElement('div');
    document.body.append(place);
    render(html`<${Markdown} text=${text} />`, place);
    const found = [...place.querySelectorAll('*')].map(one => [one.localName, one.getAttribute('href')]);
    place.remove();
    return found;
  });
}"""
ADDRESSES = st.sampled_from(
    [
        *(
            "javascript:alert(1)",
            "java\tscript:alert(1)",
            "&#106;avascript:alert(1)",
            "JAVASCRIPT&colon;alert(1)",
            "data:text/html,x",
        ),
        *(
            "//evil.example",
            "https://evil.example/",
            "mailto:a@b.c",
            "/api/runs",
            "vbscript:x",
            "file:///etc/passwd",
            "\x01javascript:1",
        ),
    ]
)
PIECES = st.one_of(
    st.tuples(
        st.sampled_from(["[a]({})", "![a]({})", "<{}>", "[a]: {}\n", "<a href='{}'>a</a>", "{}"]), ADDRESSES
    ).map(lambda pair: pair[0].format(pair[1])),
    st.sampled_from(
        [
            *(
                "<img src=x onerror=alert(1)>",
                "<svg onload=alert(1)>",
                "<!--",
                "-->",
                "<![CDATA[",
                "[a]",
                "<",
                ">",
                '"',
                "'",
                "\\",
            ),
            *(
                "`",
                "```",
                "\n",
                "\n\n",
                "> ",
                "- ",
                "1. ",
                "|",
                "|-|-|",
                "# ",
                "**",
                "_",
                "~~",
                "&lt;script&gt;",
                "\u202e",
                "\0",
                "x ",
            ),
        ]
    ),
)


@given(st.lists(st.lists(PIECES, max_size=30).map("".join), max_size=20))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_text_becomes_an_element_that_acts(tab, site, texts):
    if not tab.url.startswith(site):
        tab.goto("/")
    for name, address in tab.evaluate(RENDER, texts):
        assert name in ALLOWED
        assert name != "a" or re.match("https?://|mailto:", address)


def test_a_tool_call_is_shown_and_its_result_goes_back(tab):
    function = {"name": "weather", "arguments": '{"town": '}
    call = {"index": 0, "id": "call_1", "type": "function", "function": function}
    rest = {"index": 0, "function": {"arguments": '"Bern"}'}}
    bodies = answer_with(
        tab, [{"content": "Let me look. "}, {"tool_calls": [call]}, {"tool_calls": [rest]}], "tool_calls"
    )
    keep(tab, tools='[{"type": "function", "function": {"name": "weather"}}]')
    say(tab, "How is the weather?")
    tab.get_by_label("Result of weather").fill("snow")
    assert tab.locator(".tool pre").inner_text() == '{"town": "Bern"}'
    tab.get_by_role("button", name="Give the result").click()
    tab.get_by_text("Result of weather").wait_for()
    wait_for_answer(tab)
    assert bodies[0]["tools"][0]["function"]["name"] == "weather"
    *_, called, result = bodies[1]["messages"]
    assert called["tool_calls"][0]["function"] == {"name": "weather", "arguments": '{"town": "Bern"}'}
    assert result == {"role": "tool", "content": "snow", "tool_call_id": "call_1"}


def test_the_servers_own_tools_are_called_and_pages_are_looked_up_first(tab):
    """The events are written here, with markup where a tool or a page could have put it."""
    hostile = "<img src=x onerror=alert(1)>42"
    call = {"function": {"name": "calculator", "arguments": '{"expression": "6*7"}'}, "id": "call_1"}
    told = [
        {
            "citations": [
                {"title": "<b>Gold</b>", "url": "javascript:alert(1)", "quote": "<i>soft</i>", "start": 0}
            ]
        },
        {"text": "Let me see. "},
        {"call": call},
        {"result": {"text": hostile, "source": "calculator", "error": False, "call": "call_1"}},
        {"text": "It is 42."},
    ]
    bodies = []

    def answer(route):
        bodies.append(route.request.post_data_json)
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in told)
        route.fulfill(content_type="text/event-stream", body=f"{lines}data: [DONE]\n\n")

    tab.route("**/api/answer", answer)
    tab.goto("/#/")
    tab.get_by_role("button", name="Settings", exact=True).click()
    tab.get_by_label("Tools of this server").check()
    tab.get_by_label("Search first").check()
    say(tab, "How much is 6 * 7?")
    tab.locator(".thread").get_by_text("It is 42.").wait_for()
    wait_for_answer(tab)
    assert bodies[0]["tools"] == ["calculator"] and bodies[0]["search_first"] is True
    tab.locator(".tool").evaluate_all("all => all.forEach(one => { one.open = true; })")
    shown = tab.locator(".thread").inner_text()
    assert hostile in shown and "<i>soft</i>" in shown and "<b>Gold</b>" in shown and '"6*7"' in shown
    assert tab.locator(".thread img").count() == 0 and tab.locator(".thread a[href^=javascript]").count() == 0
    assert tab.get_by_text("Give the result").count() == 0
    say(tab, "And again?")
    tab.locator(".thread").get_by_text("It is 42.").nth(1).wait_for()
    roles = [message["role"] for message in bodies[1]["messages"]]
    assert roles == ["user", "assistant", "tool", "assistant", "user"]
    assert bodies[1]["messages"][1]["tool_calls"] == [call | {"type": "function"}]


def test_the_sources_of_an_answer_are_pages_that_hold_it(tab, nano):
    text = next(iter(list_pages(nano / "data", "documents", "", {}).rows))["text"]
    answer_with(tab, [{"content": f"🍓 {text[:150]} And so on."}])
    keep(tab)
    say(tab, "Recite a page.")
    wait_for_answer(tab)
    tab.get_by_role("button", name="Sources").click()
    span = tab.locator(".span").first
    span.press("Enter")
    passage, excerpt = span.inner_text(), tab.locator(".origins article p").last.inner_text()
    assert len(passage) > 20
    assert " ".join(passage.split()) in " ".join(excerpt.split())
    assert passage in text


def test_the_playground_samples_and_goes_on_from_another_token(tab):
    tab.goto("/#/playground")
    tab.get_by_label("Seed").fill("1")
    tab.get_by_label("Prompt").fill("Sulfur is a")
    tab.get_by_role("button", name="Continue the text").click()
    cards = tab.locator(".samples .card")
    cards.nth(2).locator(".token").nth(5).wait_for()
    tab.get_by_role("button", name="Continue the text").wait_for()
    cards.nth(0).locator(".token").nth(3).press("Enter")
    before = cards.nth(0).locator(".tokens").inner_text(), cards.nth(1).inner_text()
    kept = "".join(cards.nth(0).locator(".token").all_inner_texts()[:3])
    tab.get_by_role("group", name="Alternatives").get_by_role("button").nth(4).click()
    cards.nth(0).locator(".token.picked").wait_for()
    tab.get_by_role("button", name="Continue the text").wait_for()
    after = cards.nth(0).locator(".tokens").inner_text(), cards.nth(1).inner_text()
    assert after[0] != before[0]
    assert "".join(cards.nth(0).locator(".token").all_inner_texts()[:3]) == kept
    assert after[1] == before[1]


def test_the_next_token_table_draws_the_cuts_and_follows_the_sliders(tab):
    tab.goto("/#/playground")
    tab.get_by_label("Prompt").fill("Sulfur is a")
    tab.get_by_role("tab", name="Next token").click()
    tab.locator(".next tbody tr").nth(19).wait_for()
    assert tab.locator(".next .cut").count() == 0
    count = len(tab.requests)
    tab.get_by_label("Top-k").fill("5")
    assert tab.locator(".next .cut").all_inner_texts() == ["top-k"]
    assert tab.locator(".next tr:not(.out):not(.cut) th[scope=row]").count() == 5
    shares = [cell.removesuffix(" %") for cell in tab.locator(".next td:last-child").all_inner_texts()[:5]]
    assert sum(map(float, shares)) == pytest.approx(100, abs=0.3)
    tab.get_by_label("Temperature").fill("0")
    assert tab.locator(".next td:last-child").all_inner_texts()[0] == "100.0 %"
    assert len(tab.requests) == count  # recomputed in the page


def test_the_page_cuts_a_distribution_as_the_engine_does(tab):
    tab.goto("/")
    logits = torch.randn(1, 60, generator=torch.Generator().manual_seed(1)) * 3
    order = logits[0].argsort(descending=True)
    rows = [{"logprob": float(value)} for value in logits[0].log_softmax(0)[order]]
    script = """async ([rows, settings]) => {
      const { chosen } = await import('/static/js/sampling.js');
      return chosen(rows, settings, rows.length).final;
    }"""
    for temperature in (0.5, 1.0, 1.7):
        for top_k, top_p, min_p in (
            (0, 1.0, 0.0),
            (7, 1.0, 0.0),
            (0, 0.8, 0.0),
            (0, 1.0, 0.1),
            (12, 0.9, 0.05),
            (3, 0.4, 0.3),
        ):
            chosen = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p}
            expected = distribution(logits, Sampling(**chosen))[0][order].tolist()
            assert tab.evaluate(script, [rows, chosen]) == pytest.approx(expected, abs=1e-5), chosen


def test_a_text_is_coloured_by_surprise(tab):
    tab.goto("/#/playground")
    tab.get_by_label("Prompt").fill("Sulfur is a chemical element; it has symbol S. zqx zqx")
    tab.get_by_role("tab", name="Surprise").click()
    tab.get_by_text(re.compile("Perplexity [0-9.]+")).wait_for()
    expect(tab.locator(".surprise")).to_contain_text("symbol S. zqx zqx")
    heats = tab.locator(".surprise .token").evaluate_all(
        "tokens => tokens.map(token => [token.textContent, parseInt(token.style.getPropertyValue('--heat'))])"
    )
    by_text = dict(heats)
    assert by_text["x"] > by_text[" element"]


def test_the_tokenizer_page_cuts_builds_and_renders(tab):
    tab.goto("/#/tokenizer")
    tab.get_by_label("Text to cut").fill("é<|im_end|>")
    tab.get_by_text("11 characters, 12 bytes").wait_for()
    assert tab.locator("section").first.locator(".chip.control").count() == 0
    expect(tab.locator(".chip[title*='bytes c3']")).to_have_count(1)
    tab.get_by_label("Word to build").fill(" chemical")
    steps = tab.locator(".steps li")
    steps.filter(has_text="·chemical").last.wait_for()
    assert steps.first.locator(".chip").count() == len(" chemical")
    tab.get_by_label("Message 1", exact=True).fill("<|im_start|>")
    talk = tab.locator("section").last
    talk.get_by_text(re.compile("11 of them control tokens, [1-9][0-9]* learned")).wait_for()
    assert "<|im_end|>" in talk.locator(".chips .chip.learned").all_inner_texts()
    assert talk.locator(".chip.control").last.inner_text() == "<|im_sep|>"


def test_the_data_page_shows_why_pages_went_and_finds_what_stayed(tab, nano):
    record = json.loads((nano / "data" / "funnel.json").read_text())
    tab.goto("/#/data")
    expect(tab.locator(".funnel li")).to_have_count(len(record["steps"]))
    duplicates = next(row["pages"] for row in record["removed"] if row["step"] == "duplicate")
    tab.get_by_role("link", name=f"−{duplicates}").click()
    assert tab.get_by_label("Step").input_value() == "duplicate"
    for count in range(MAX_ROWS, duplicates, MAX_ROWS):
        expect(tab.locator(".entry")).to_have_count(count)
        tab.get_by_role("button", name="Show more").click()
    expect(tab.locator(".entry")).to_have_count(duplicates)
    tab.locator(".entry h2 button").first.click()
    expect(tab.locator(".whole")).to_contain_text("characters")
    tab.get_by_label("Step").select_option("language")
    tab.get_by_label("Reason").select_option("fr")
    tab.locator(".why", has_text="fr").first.wait_for()
    assert "reason=fr" in tab.url
    tab.get_by_role("link", name="Search").click()
    tab.get_by_label("Words to search for").fill('"chemical element"')
    tab.get_by_role("button", name="Search").click()
    tab.locator(".entry mark").first.wait_for()
    assert tab.locator(".entry mark").first.inner_text().lower() == "chemical element"
    tab.get_by_role("button", name="Next", exact=True).click()
    tab.get_by_text(re.compile("documents, 21 to")).wait_for()


def test_the_runs_page_draws_curves_and_names_inputs(tab, nano):
    tab.goto("/#/runs")
    tab.locator(".chart canvas").nth(1).wait_for()
    assert tab.locator(".stages > li").count() == len(stages(load_recipe("nano")))
    ink = """canvas => {
      const image = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      return image.data.some(value => value > 0);
    }"""
    assert tab.locator(".chart canvas").first.evaluate(ink)
    fingerprint = RunFolder(nano).manifest("tokens").fingerprint[:8]
    assert (
        tab.locator(".lineage", has_text="pretrain").get_by_text(f"tokens {fingerprint}").first.is_visible()
    )
    tab.get_by_label("compare with other").check()
    tab.get_by_text("other: loss").first.wait_for()
    tab.get_by_role("link", name="other").click()
    tab.locator(".tag.absent", has_text="not yet").first.wait_for()


def test_a_training_that_goes_on_is_drawn_as_it_goes(tab, run):
    work = run / ".work" / "sft"
    work.mkdir(parents=True)
    log = work / "log.jsonl"
    log.write_text('{"step": 0, "loss": 3.5}\n{"step": 1, "loss": 2.5}\n')
    tab.goto("/#/runs")
    expect(tab.get_by_label("loss 2.500 at step 1")).to_be_visible()
    expect(tab.get_by_text("being made anew")).to_be_visible()
    with open(log, "a") as file:
        file.write('{"step": 2, "loss": 1.25}\n')
    expect(tab.get_by_label("loss 1.250 at step 2")).to_be_visible()
    shutil.rmtree(work)
    expect(tab.get_by_text("being made anew")).to_have_count(0)


def test_a_server_with_keys_asks_for_one(chromium):
    with page_of_a_model(Settings(keys=("secret",))) as server, chromium.new_context() as context:
        tab = context.new_page()
        tab.goto(server.url)
        tab.get_by_label("asks for a key").fill("secret")
        tab.get_by_role("button", name="Use it").click()
        say(tab, "Hello")
        wait_for_answer(tab)


def test_a_server_that_is_gone_is_said_in_one_line(chromium):
    with chromium.new_context() as context:
        tab = context.new_page()
        with page_of_a_model(Settings()) as server:
            tab.goto(server.url)
            expect(tab.get_by_role("button", name="What is").first).to_be_visible()
        say(tab, "Hello")
        expect(tab.get_by_role("alert")).to_have_text(
            "The server does not answer. Is `crawltalk serve` still running?"
        )


PAGES = {
    "/#/chat": ".message.assistant .actions",
    "/#/playground": "#preset",
    "/#/tokenizer": ".chip.control",
    "/#/data": ".funnel",
    "/#/data/dropped": ".entry",
    "/#/data/search?words=metal": ".entry",
    "/#/labels": "#labeler",
    "/#/runs": ".chart canvas",
}
"""What is there when a page is."""
NAMELESS = """() => {
  const labels = one => [...one.labels ?? []].map(label => label.textContent).join('');
  const name = one => one.getAttribute('aria-label') || one.textContent || labels(one);
  const all = document.querySelectorAll('a, button, input, select, textarea, summary, [role=button], [role=tab]');
  return [...all].filter(one => one.checkVisibility() && !name(one).trim()).map(one => one.outerHTML);
}"""


@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_scrolls_sideways_and_every_control_has_a_name(tab, width):
    tab.set_viewport_size({"width": width, "height": 740})
    keep(tab)
    say(tab, "word" * 20)
    wait_for_answer(tab)
    for address, shown in PAGES.items():
        tab.goto(address)
        tab.locator(shown).last.wait_for()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), address
        assert tab.evaluate(NAMELESS) == [], address
        ids = tab.evaluate("[...document.querySelectorAll('[id]')].map(one => one.id)")
        assert len(ids) == len(set(ids)), address
        assert tab.locator("main#main").count() == 1


def test_the_keyboard_is_enough(tab):
    tab.goto("/#/runs")
    tab.locator("main").wait_for()
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the content"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.id") == "main"
    keep(tab, temperature=0)
    message = tab.get_by_label("Message", exact=True)
    message.press_sequentially("one")
    message.press("Shift+Enter")
    message.press_sequentially("two")
    message.press("Enter")
    wait_for_answer(tab)
    assert tab.locator(".message.user .said").inner_text() == "one\ntwo"


def test_the_colours_follow_the_system_until_a_person_chooses(tab):
    tab.emulate_media(color_scheme="dark")
    tab.goto("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    dark = tab.evaluate(ground)
    tab.get_by_role("button", name="Use the light colours").click()
    tab.wait_for_function(f"{ground} === 'rgb(255, 255, 255)'")
    tab.reload()
    assert tab.evaluate(ground) == "rgb(255, 255, 255)" != dark
