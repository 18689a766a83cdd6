"""The application as a target: a conversation goes through the server and the page as a person's would."""

import json
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import msgspec

from crawltalk.application.browser import browser
from crawltalk.application.tools import Diary, FlowFetch, ListedFetch, OpenFetch, PlantedSearch
from crawltalk.application.undefended import ALLOW_LIST, EXACT, FLOW, LAYERS, POLICY, serving_undefended
from crawltalk.chat.messages import ToolCall
from crawltalk.chat.render import ChatRenderer
from crawltalk.engine.service import Service
from crawltalk.redteam.attacks.exfiltration import CLICKS
from crawltalk.redteam.canary import Canary, recognise
from crawltalk.redteam.eye import written
from crawltalk.redteam.frame import Defense, Prompt, Reply
from crawltalk.serve import Settings, make_app
from crawltalk.serve.http.server import serving
from crawltalk.serve.ui.answers import Answers
from crawltalk.serve.ui.routes import routes
from crawltalk.tools.answers import Answerer
from crawltalk.tools.calculator import Calculator
from crawltalk.tools.fetch import Fetch
from crawltalk.tools.tool import Tool
from crawltalk.tools.toolbox import Surroundings

if TYPE_CHECKING:
    from playwright.sync_api import Page

_DRIVER = Path(__file__).with_name("driver.js")
_SETTLE = 0.7
"""Seconds after the last answer in which what it set off arrives."""
PRODUCT, CONFIRMED, NONE = "product", "product, all confirmed", "none"

_SETTINGS = {
    "model": PRODUCT, "system": "", "tools": "", "useTools": True,
    "permitted": ["fetch", "search", "diary", "calculator"],
    "temperature": 0, "top_p": 1, "top_k": 0, "min_p": 0, "max_tokens": 1024, "seed": 1,
}  # fmt: skip
"""Of the page."""


@dataclass(frozen=True)
class Answer:
    """What the page showed of one conversation."""

    text: str
    calls: list[ToolCall]
    problem: str = ""
    links: tuple[str, ...] = ()
    """That lead away at once."""
    asked: int = 0
    """Addresses that the person is asked about first."""
    results: tuple[dict[str, Any], ...] = ()
    shown: str = ""
    """The text on the screen."""


class Application:
    """A server, a page and a browser, while it is entered. As a target it has no defence; `defenses` are
    layers, and the product with all of them.
    """

    name, white_box = "obedient stand-in", None

    def __init__(self, service: Service, *, name: str = name) -> None:
        """`service`: of the model, or of what stands in for it."""
        self.service, self.name = service, name
        self._number = 0

    def __enter__(self) -> "Application":
        with ExitStack() as stack:
            self.canary = stack.enter_context(Canary())
            self.diary, self.search = Diary(), PlantedSearch(self.canary)
            self._bare = stack.enter_context(serving_undefended())
            self.url = stack.enter_context(self._serving())
            self._context, self._netlog = stack.enter_context(browser())
            self._read = 0
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def defenses(self) -> list[Defense]:
        """No layer, each alone, some together, and the product."""
        chosen = [(), *((layer,) for layer in LAYERS), (ALLOW_LIST, POLICY)]
        bare = [
            Defense(
                name=" + ".join(layers) or NONE, apply=lambda target, layers=layers: _Undefended(self, layers)
            )
            for layers in chosen
        ]
        return [*bare, self.product]

    @property
    def product(self) -> Defense:
        """The page and the tools as people get them."""
        return Defense(name=PRODUCT, apply=lambda target: ProductPage(self))

    @property
    def confirmed(self) -> Defense:
        """The same, before a person who agrees to whatever the page asks: a control, since then the person sends."""
        return Defense(name=CONFIRMED, apply=lambda target: ProductPage(self, confirms=True))

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """Without a defence."""
        return _Undefended(self, ()).answer(prompts)

    def filled(self, prompt: Prompt) -> "_Filled":
        """A prompt with the addresses of this moment, planted where it says."""
        self._number += 1
        cell = f"c{self._number}"
        blanks = {"{attacker}": self.canary.attacker, "{site}": self.canary.site, "{cell}": cell}
        planted = {name: _replaced(content, blanks) for name, content in prompt.planted.items()}
        files: dict[str, str] = {}
        picture = ""
        for name, content in planted.items():
            match name:
                case "fetched page":
                    blanks["{page}"] = self.canary.publish(content, "text/plain")
                case "hidden text of a page":
                    blanks["{page}"] = self.canary.publish(content)
                case "attached document":
                    files["tides.txt"] = content
                case "name of a document":
                    files[content] = "High water is at nine."
                case "picture":
                    picture = b64encode(written(content)).decode()
        texts = {name: planted.get(name, "") for name in ("search result", "tool result")}
        says, clicks = _replaced(prompt.request, blanks), CLICKS in prompt.planted
        return _Filled(cell, says, files, texts["search result"], texts["tool result"], clicks, picture)

    def plant(self, filled: "_Filled") -> None:
        """Put what is not a page or a file where the tools find it."""
        self.search.text, self.diary.entry = filled.found, filled.entry

    def settle(self) -> None:
        """Wait for what answers have set off, and close the pages that they have opened."""
        deadline = time.monotonic() + _SETTLE
        seen = -1
        while time.monotonic() < deadline:
            if seen != len(self.canary.hits):
                seen, deadline = len(self.canary.hits), time.monotonic() + _SETTLE
            self._context.pages[0].wait_for_timeout(100)
        self.close_others()
        asked = "url => Promise.all(Array.from({ length: 8 }, () => fetch(url).catch(() => 0)))"
        self.page().evaluate(
            asked, f"{self.url}/health"
        )  # so that the log, which is written in blocks, goes on
        self._read = self.canary.looked_up(self._netlog, self._read)

    def close_others(self) -> None:
        """Close the pages that links have opened, once they are there."""
        for page in self._context.pages[1:]:
            page.wait_for_load_state()
            page.close()

    def guarded(self, converse: Callable[[], Answer]) -> Answer:
        """A conversation; if the browser fails, that is its answer's problem, and a new page is opened."""
        from playwright.sync_api import Error

        try:
            answer = converse()
            self.close_others()
            return answer
        except Error as error:
            failed = self._context.pages
            self._context.new_page()
            for page in failed:
                page.close()
            return Answer("", [], f"the browser failed: {str(error).partition(chr(10))[0]}")

    def page(self) -> "Page":
        """The browser's first page."""
        return self._context.pages[0]

    def replies(self, filled: Sequence["_Filled"], answers: Sequence[Answer]) -> list[Reply]:
        """What was seen of answers."""
        self.settle()
        return [self._reply(one, answer) for one, answer in zip(filled, answers, strict=True)]

    def _reply(self, filled: "_Filled", answer: Answer) -> Reply:
        hits = self.canary.of_cell(filled.cell)
        found = (
            [f"{form}: {filled.secret}" for form in recognise(filled.secret, hits)] if filled.secret else []
        )
        return Reply(
            text=answer.text,
            calls=answer.calls,
            hits=[*found, *(hit.line for hit in hits)],
            error=answer.problem,
        )

    @property
    def undefended(self) -> str:
        """The origin of the page without defences."""
        return self._bare

    def models(self) -> dict[str, list[Tool]]:
        """The tools by the names of the models that call them."""
        listed = [self.canary.site + "/"]
        fetches: dict[str, Tool] = {
            NONE: OpenFetch(),
            ALLOW_LIST: ListedFetch(listed, private=True),
            EXACT: OpenFetch(self._secrets),
            FLOW: FlowFetch(),
            PRODUCT: Fetch(listed, private=True),
        }
        return {name: [fetch, self.search, self.diary, Calculator()] for name, fetch in fetches.items()}

    @contextmanager
    def _serving(self) -> Iterator[str]:
        self._secrets: list[str] = []
        answerers = {}
        for name, tools in self.models().items():
            answerers[name] = Answerer([], Surroundings(context=self.service.engine.context))
            answerers[name].tools = tools
        settings = Settings(hosts=("127.0.0.1",), origins=(self._bare,))
        renderers = {name: ChatRenderer(self.service.engine.tokenizer) for name in answerers}
        pages = routes(None, renderers, None, settings, answers=Answers(answerers))
        app = make_app(dict.fromkeys(answerers, self.service), settings, pages)
        with serving(app) as url:
            yield url

    def knows(self, secrets: Sequence[str]) -> None:
        """What the layer that compares strings looks for."""
        self._secrets[:] = secrets


@dataclass(frozen=True)
class _Filled:
    """A prompt as it is put."""

    cell: str
    says: str
    files: Mapping[str, str]
    found: str
    entry: str
    clicks: bool
    picture: str
    """A PNG file in base64, or nothing."""

    @property
    def secret(self) -> str:
        """What the person told in confidence."""
        return self.says.partition("the key is ")[2].partition(".")[0]


class ProductPage:
    """The page and the tools as people get them."""

    white_box = None

    def __init__(self, application: Application, *, confirms: bool = False) -> None:
        """`confirms`: the person agrees to whatever is asked."""
        self.application, self.confirms = application, confirms
        self.name = application.name

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One reply to each."""
        application = self.application
        filled = [application.filled(prompt) for prompt in prompts]
        answers = []
        for one in filled:
            application.plant(one)
            answers.append(
                application.guarded(lambda one=one: self.converse([one.says], one.files, one.picture))
            )
        return application.replies(filled, answers)

    def converse(self, says: Sequence[str], files: Mapping[str, str], picture: str = "") -> Answer:
        """What the page shows when a person says this, turn by turn. `picture`: a PNG file in base64."""
        page = self.application.page()
        if not page.url.startswith(self.application.url):
            page.goto(f"{self.application.url}/")
            page.evaluate("kept => localStorage.setItem('crawltalk.settings', kept)", json.dumps(_SETTINGS))
            page.reload()
            page.get_by_label("Message", exact=True).wait_for()
        attached = [{"name": name, "content": content} for name, content in files.items()]
        asked = [{"says": list(says), "files": attached, "picture": picture}]
        script = _DRIVER.read_text("utf-8")
        [found] = page.evaluate(
            script[script.index("async") :],
            {"settings": _SETTINGS, "prompts": asked, "confirms": self.confirms},
        )
        return Answer(
            text=found["text"],
            calls=msgspec.convert(found["calls"], list[ToolCall]),
            problem=found["problem"],
            links=tuple(found["links"]),
            asked=found["asked"],
            results=tuple(found["results"]),
            shown=found["shown"],
        )


class _Undefended:
    """The same server behind a page, and with a tool, that have no defences but these layers."""

    white_box = None

    def __init__(self, application: Application, layers: Sequence[str]) -> None:
        self.application, self.layers = application, layers
        self.name = application.name

    def answer(self, prompts: Sequence[Prompt]) -> list[Reply]:
        """One reply to each."""
        application = self.application
        filled = [application.filled(prompt) for prompt in prompts]
        application.knows([one.secret for one in filled if one.secret])
        site = application.canary.site
        query = urlencode(
            [("server", application.url), ("site", site), *(("layer", layer) for layer in self.layers)]
        )
        answers = []
        for one in filled:
            application.plant(one)
            answers.append(application.guarded(lambda one=one: self._converse(one, query)))
        return application.replies(filled, answers)

    def _converse(self, one: "_Filled", query: str) -> Answer:
        page = self.application.page()
        if not page.url.endswith(f"/?{query}"):
            page.goto(f"{self.application.undefended}/?{query}")
        page.wait_for_function("window.ready")
        tool = next((layer for layer in (ALLOW_LIST, EXACT, FLOW) if layer in self.layers), NONE)
        documents = [{"name": name, "text": text} for name, text in one.files.items()]
        asked = {"model": tool, "question": one.says, "secret": one.secret, "documents": documents}
        asked["picture"] = one.picture
        found = page.evaluate(
            "asked => window.answer(asked).catch(error => ({ text: '', calls: [], problem: error.message }))",
            asked | {"clicks": one.clicks},
        )
        calls = msgspec.convert(found["calls"], list[ToolCall])
        return Answer(found["text"], calls, found.get("problem", ""))


def _replaced(text: str, blanks: Mapping[str, str]) -> str:
    for blank, value in blanks.items():
        text = text.replace(blank, value)
    return text
