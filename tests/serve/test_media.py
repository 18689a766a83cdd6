"""Images and sounds in chat completions, and in the page."""

import base64
import io
import shutil

import anthropic
import openai
import pytest
from PIL import Image
from playwright.sync_api import expect, sync_playwright

from crawltalk.multimodal.sounds import read_wav
from crawltalk.serve import Settings
from crawltalk.serve.ui.routes import routes
from support.browsing import answer_with, say, wait_for_answer
from support.media import TONE, audio_part, image_part, png, random_reader, said, text_part
from support.serving import serving

RED, BLUE = (image_part(Image.new("RGB", (20, 10), colour)) for colour in ("red", "blue"))


@pytest.fixture(scope="module")
def reader():
    return random_reader()


@pytest.fixture(scope="module")
def server(reader):
    settings = Settings(hosts=("127.0.0.1",))
    pages = routes(None, {"tiny": reader.renderer}, None, settings)
    with serving(settings, routes=pages, engine=reader.engine()) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)


def ask(client, *parts, **options):
    return client.chat.completions.create(
        model="tiny", messages=said(*parts), temperature=0, max_tokens=8, logprobs=True, **options
    )


def test_an_image_and_a_sound_are_read(client, reader):
    chances = [
        ask(client, part, text_part("Read.")).choices[0].logprobs.content[0].logprob for part in (RED, BLUE)
    ]
    assert chances[0] != chances[1]
    answer = ask(client, audio_part(TONE), text_part("Which word?"))
    assert answer.usage.prompt_tokens == len(reader.prompt("audio", "Which word?"))


def test_the_same_image_is_found_in_the_cache_and_another_is_not(client):
    parts = [image_part(Image.new("RGB", (20, 10), "green")), text_part("Read. " * 12)]
    whole = ask(client, *parts).usage.prompt_tokens
    assert ask(client, *parts).usage.prompt_tokens_details.cached_tokens > whole // 2
    assert ask(client, RED, *parts[1:]).usage.prompt_tokens_details.cached_tokens == 0


def test_the_card_of_a_model_says_what_it_reads(client):
    assert client.models.retrieve("tiny").reads == ["image_url", "input_audio"]


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image_url", "image_url": {"url": "https://localhost/a.png"}}, "not fetched from the web"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            "no image that can be read",
        ),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            "no sound that can be read",
        ),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}, "send a WAV file"),
        ({"type": "file", "file": {"file_id": "a"}}, "no file"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(client, part, reason):
    with pytest.raises(openai.BadRequestError, match=reason) as error:
        ask(client, part)
    assert "\n" not in error.value.body["message"]


def test_an_image_that_is_too_large_is_refused(client):
    large = io.BytesIO()
    Image.new("1", (5000, 4000)).save(large, "PNG")
    huge = image_part(Image.open(large))
    with pytest.raises(openai.BadRequestError, match="more than 16,000,000 pixels"):
        ask(client, huge)


def test_more_images_than_fit_are_too_long_a_prompt(client):
    with pytest.raises(openai.BadRequestError, match="maximum context length"):
        ask(client, *[RED] * 20)


def as_block(part):
    """The image of a part, as Anthropic's API has it."""
    head, _, data = part["image_url"]["url"].partition(";base64,")
    source = {"type": "base64", "media_type": head.removeprefix("data:"), "data": data}
    return {"type": "image", "source": source}


def as_input(part):
    """The same as the Responses API has it."""
    return {"type": "input_image", "image_url": part["image_url"]["url"], "detail": "low"}


def respond(client, *parts, **options):
    return client.responses.create(
        model="tiny",
        input=[{"role": "user", "content": list(parts)}],
        temperature=0,
        max_output_tokens=8,
        **options,
    )


def test_responses_read_the_same_images_and_sounds_as_chat(client):
    asked = {"type": "input_text", "text": "Read."}
    for part, given in ((RED, as_input(RED)), (BLUE, as_input(BLUE)), (audio_part(TONE),) * 2):
        chat = ask(client, part, text_part("Read."))
        response = respond(client, given, asked)
        assert response.output_text == chat.choices[0].message.content
        assert response.usage.input_tokens == chat.usage.prompt_tokens


def test_a_response_with_an_image_is_continued_and_lists_what_it_read(client):
    first = respond(client, as_input(RED), {"type": "input_text", "text": "Read."})
    second = respond(client, {"type": "input_text", "text": "Read."}, previous_response_id=first.id)
    assert second.usage.input_tokens > first.usage.input_tokens
    oldest = client.responses.input_items.list(second.id, order="asc").data[0]
    image, text = oldest.content
    assert (image.type, image.image_url, image.detail) == ("input_image", RED["image_url"]["url"], "low")
    assert (text.type, text.text) == ("input_text", "Read.")


def test_anthropics_messages_read_the_same_images_as_chat(client, server):
    with anthropic.Anthropic(base_url=server.url, api_key="-", max_retries=0) as other:
        for part in (RED, BLUE):
            messages = [{"role": "user", "content": [as_block(part), text_part("Read.")]}]
            message = other.messages.create(
                model="tiny", max_tokens=8, messages=messages, extra_body={"temperature": 0}
            )
            chat = ask(client, part, text_part("Read."))
            assert message.content[0].text == chat.choices[0].message.content
            counted = other.messages.count_tokens(model="tiny", messages=messages)
            assert counted.input_tokens == chat.usage.prompt_tokens


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"type": "url", "url": "https://localhost/a.png"}, "not fetched from the web"),
        ({"type": "file", "file_id": "file_1"}, r"messages.0.content.0: no files are kept"),
        ({"type": "base64", "media_type": "image/png", "data": "AAAA"}, "no image that can be read"),
    ],
)
def test_what_messages_cannot_read_is_refused_in_one_line(server, source, reason):
    with anthropic.Anthropic(base_url=server.url, api_key="-", max_retries=0) as other:
        messages = [{"role": "user", "content": [{"type": "image", "source": source}]}]
        with pytest.raises(anthropic.BadRequestError, match=reason):
            other.messages.create(model="tiny", max_tokens=8, messages=messages)


def test_what_responses_cannot_read_is_refused_by_its_field(client):
    for part in ({"type": "input_image", "file_id": "file_1"}, {"type": "input_file", "file_id": "file_1"}):
        with pytest.raises(openai.BadRequestError) as error:
            respond(client, {"type": "input_text", "text": "Read."}, part)
        assert error.value.param == "input[0].content[1]"


@pytest.fixture
def tab(server):
    if (path := shutil.which("chromium")) is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    flags = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        tab = browser.new_context(base_url=server.url).new_page()
        tab.set_default_timeout(20_000)
        complaints = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto("/")
        tab.get_by_role("button", name="Record").wait_for()
        yield tab
        browser.close()
        assert complaints == []


@pytest.mark.slow
def test_the_page_sends_an_image_and_what_the_microphone_hears(tab):
    bodies = answer_with(tab, [{"content": "STOP"}])
    tab.get_by_label("Documents to attach").set_input_files(
        {"name": "red.png", "mimeType": "image/png", "buffer": png(Image.new("RGB", (20, 10), "red"))}
    )
    expect(tab.get_by_label("Documents", exact=True)).to_contain_text("image")
    tab.get_by_role("button", name="Record").click()
    tab.get_by_role("button", name="End the recording").wait_for()
    tab.wait_for_timeout(600)
    tab.get_by_role("button", name="End the recording").click()
    expect(tab.get_by_label("Documents", exact=True)).to_contain_text("sound")
    say(tab, "Which word?")
    wait_for_answer(tab)
    image, sound, asked = bodies[0]["messages"][-1]["content"]
    assert image == RED
    assert asked == text_part("Which word?")
    samples, rate = read_wav(base64.b64decode(sound["input_audio"]["data"]))
    assert sound["input_audio"]["format"] == "wav"
    assert len(samples) > rate / 4
