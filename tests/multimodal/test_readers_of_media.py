"""A model that reads images and sounds: what it learns from, how it is saved, and how an engine asks it."""

import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from crawltalk.chat.render import ChatRenderer
from crawltalk.core.errors import BadInput, MissingInput
from crawltalk.engine import Engine, PromptEmbeddings, Sampling
from crawltalk.engine import load_engine as load_text_engine
from crawltalk.multimodal import load_engine
from crawltalk.multimodal.encoders import AudioEncoder, AudioInput, ImageEncoder, ImageInput
from crawltalk.multimodal.model import WEIGHTS
from crawltalk.multimodal.pictures import LETTERS, OWN, Style, draw_line, draw_scene
from crawltalk.multimodal.reader import Example, Reader, hears_commands, reads_lines
from crawltalk.multimodal.sounds import CLIP
from crawltalk.multimodal.speech import COMMANDS, Voice, draw_command, formants, voices
from crawltalk.recipe import Machine
from crawltalk.run.stage import Progress
from support.media import SMALL, TONE, audio_part, image_part, random_reader, said, text_part

GREEDY = Sampling(temperature=0.0, max_tokens=3)


@pytest.fixture(scope="module")
def reader() -> Reader:
    return random_reader()


def test_each_letter_has_its_middle_between_its_edges():
    line = draw_line(random.Random(0), "HH", style=Style(noise=0, ground=(255, 255, 255)), names=[OWN])
    dark = np.flatnonzero(line.pixels.min((0, 2)) < 0.9)
    assert dark[0] < line.centres[0] < line.centres[1] < dark[-1]


def test_lines_differ_in_place_and_stay_on_the_canvas():
    rng = random.Random(0)
    lines = [draw_line(rng, "W" * 10, style=Style(noise=0, ground=(255, 255, 255))) for _ in range(20)]
    assert len({line.centres[0] for line in lines}) > 5
    for line in lines:
        assert (line.pixels[:, 0] == 1).all()
        assert (line.pixels[:, -1] == 1).all()


def test_the_contrast_of_a_line_is_the_one_that_is_asked_for():
    style = Style(noise=0, ground=(255, 255, 255), contrast=(0.02, 0.02))
    line = draw_line(random.Random(0), "MMM", style=style)
    assert 1 - line.pixels.min() == pytest.approx(0.02, abs=1 / 255)


def test_answers_about_scenes_are_what_they_show():
    rng = random.Random(0)
    scenes = [draw_scene(rng) for _ in range(200)]
    assert {scene.question for scene in scenes} == {"How many?", "Which colour?", "Which shape?", "Where?"}
    for scene in scenes:
        if scene.question == "Where?":
            columns = np.flatnonzero(scene.pixels.min((0, 2)) < 0.8)
            assert scene.answer == ("left", "middle", "right")[int(columns.mean() // 53.4)]


def test_commands_differ_by_word_and_by_voice():
    one, other = voices(formants)[0], voices(formants, held_out=True)[0]
    waves = [formants(word, voice) for word in COMMANDS for voice in (one, other)]
    assert len({wave.tobytes() for wave in waves}) == 2 * len(COMMANDS)
    assert not {voice.name for voice in voices(formants)} & {
        voice.name for voice in voices(formants, held_out=True)
    }
    clip, word = draw_command(random.Random(0), formants, [one])
    assert clip.shape == (CLIP,)
    assert word in COMMANDS


def test_quiet_speech_equals_loud_speech_where_loudness_does_not_count():
    loud = torch.from_numpy(np.pad(formants("stop", Voice("1.0", 1.0, 0.5)), (500, CLIP))[None, :CLIP])
    same, other = (AudioEncoder(AudioInput(loudness=kind), 8) for kind in ("clip", "absolute"))
    assert same.log_mel(loud / 10) == pytest.approx(same.log_mel(loud), abs=0.05)
    assert other.log_mel(loud / 10).max() < other.log_mel(loud).max() - 0.9


def test_faint_text_equals_plain_text_where_patches_are_normalised():
    torch.manual_seed(0)
    plain = torch.rand(1, 16, 32, 3)
    faint = 1 - 0.05 * plain
    by_patch = ImageEncoder(ImageInput(height=16, width=32, contrast="patch"), 8)
    assert by_patch.normalized(faint) == pytest.approx(-by_patch.normalized(plain), rel=0.1, abs=0.1)
    assert ImageEncoder(SMALL, 8).normalized(faint).abs().max() < 0.2


def test_a_saved_reader_answers_as_before_and_its_decoder_is_a_model_like_any_other(reader, tmp_path):
    reader.save(tmp_path)
    messages = said(image_part(Image.new("RGB", (20, 10), "blue")), text_part("Read."), audio_part(TONE))
    engine = load_engine(tmp_path)
    assert engine.reply(messages, GREEDY) == reader.engine().reply(messages, GREEDY)
    assert Reader.load(tmp_path).model.inputs == reader.model.inputs
    assert load_text_engine(tmp_path).reply([{"role": "user", "content": "Hi"}], GREEDY) is not None


def test_the_vectors_stand_in_their_places_whatever_the_order_of_the_parts(reader):
    engine = reader.engine()
    red, blue = (image_part(Image.new("RGB", (20, 10), colour)) for colour in ("red", "blue"))
    for parts in (
        [red, text_part("Read."), audio_part(TONE)],
        [text_part("Which word?"), audio_part(TONE), red, blue],
    ):
        prompt, _ = engine.chat_prompt(said(*parts))
        read = engine.embeddings_of(said(*parts), prompt)
        assert len(read) == sum(part["type"] != "text" for part in parts)
        places = {position for one in read for position in range(one.start, one.end)}
        assert places == {i for i, token in enumerate(prompt) if token in reader.model.places.values()}


def test_the_engine_reads_an_image_as_the_model_does(reader):
    pictures = [
        np.full((16, 32, 3), 0.1, np.float32),
        np.random.default_rng(0).random((16, 32, 3), np.float32),
    ]
    prompt, engine = reader.prompt("image", "Read."), reader.engine()
    start = prompt.index(reader.model.places["image"])
    with torch.no_grad():
        seen = [{"image": torch.from_numpy(one)[None]} for one in pictures]
        states = [reader.model.read(torch.tensor([prompt]), one)[0, -1] for one in seen]
        wanted = [reader.model.logits(one).log_softmax(0) for one in states]
    assert not torch.allclose(*wanted, atol=0.01)
    for picture, logprobs in zip(pictures, wanted, strict=True):
        read = [PromptEmbeddings(start, engine.media.vectors("image", picture))]
        request = engine.request(prompt, Sampling(max_tokens=1, temperature=0.0, logprobs=3), embeddings=read)
        [output] = [output for output in engine.run([request]) if output.finish_reason]
        token = output.tokens[0] if output.tokens else output.stop_token
        for index, logprob in token.top:
            assert logprob == pytest.approx(float(logprobs[index]), abs=1e-4)


def test_the_oldest_images_are_left_out_with_their_messages(reader):
    engine = reader.engine()
    red = said(image_part(Image.new("RGB", (4, 4), "red")), text_part("Read."))
    blue = said(image_part(Image.new("RGB", (4, 4), "blue")), text_part("Read."))
    long = [*red, {"role": "assistant", "content": "A" * 80}, *blue]
    prompt, dropped = engine.chat_prompt(long)
    assert dropped
    alone, _ = engine.chat_prompt(blue)
    [one], [other] = engine.embeddings_of(long, prompt), engine.embeddings_of(blue, alone)
    assert one.key == other.key


def test_text_never_becomes_the_place_of_an_image(reader):
    ids = reader.renderer.encode_chat([{"role": "user", "content": "<|image|> <|audio|>"}])
    assert not set(ids) & set(reader.model.places.values())


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ({"type": "image_url", "image_url": {"url": "http://localhost/a.png"}}, "not fetched from the web"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,*"}}, "not in base64"),
        (
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            "no image that can be read",
        ),
        ({"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}}, "send a WAV file"),
        (
            {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
            "no sound that can be read",
        ),
    ],
)
def test_parts_that_cannot_be_read_are_refused_in_one_line(reader, part, reason):
    with pytest.raises(BadInput, match=reason) as error:
        reader.engine().reply(said(part), GREEDY)
    assert "\n" not in str(error.value)


def test_a_model_without_encoders_says_that_it_reads_text_only(reader):
    engine = Engine(reader.model, reader.renderer.tokenizer, renderer=ChatRenderer(reader.renderer.tokenizer))
    with pytest.raises(BadInput, match="reads text only, no image_url"):
        engine.reply(said(image_part(Image.new("RGB", (4, 4)))), GREEDY)


def test_a_folder_without_its_encoders_says_so(reader, tmp_path):
    reader.save(tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"nothing")
    with pytest.raises(BadInput, match="does not fit config"):
        load_engine(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    with pytest.raises(MissingInput, match="copy the whole folder"):
        load_engine(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["crawltalk_encoders"] = {"smell": {}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(BadInput, match="of another version"):
        load_engine(tmp_path)


def test_a_reader_learns_one_aligned_letter_in_seconds_and_resumes_as_if_it_had_never_stopped(tmp_path):
    style = Style(sizes=(12, 12), noise=0, aligned=True, contrast=(0.8, 1.0))
    draw = reads_lines("ACLT", (32, 16), style, most=1)
    machine = Machine(workers=1, device="cpu", dtype="float32")

    def trained(out) -> Reader:
        one = Reader.new({"image": SMALL}, 0, layers=1, width=32)
        one.learn("image", draw, steps=60, seed=0, out=out, machine=machine, progress=Progress())
        return one

    reader = trained(tmp_path)
    rng = random.Random(7)
    assert reader.accuracy("image", [draw(rng, 1.0) for _ in range(32)]) >= 0.9
    again = trained(tmp_path)  # finds its last checkpoint
    for name, weight in reader.model.state_dict().items():
        assert torch.equal(weight, again.model.state_dict()[name]), name


def test_where_a_letter_stands_is_learned_with_what_the_text_says(reader):
    line = draw_line(random.Random(0), "AB", (32, 16), Style(sizes=(9, 9)))
    ids, targets = reader.row("image", Example(line.pixels, "Read.", "AB", line.centres), random.Random(0))
    spelled = reader.renderer.tokenizer.decode([target for target in targets if target >= 0])
    assert spelled.replace("<|image|>", "") == "ABAB<|im_end|>"
    assert [targets[ids.index(reader.model.places["image"]) + int(x // 4)] for x in line.centres] == [65, 66]


def test_the_same_step_has_the_same_examples(reader):
    batches = reader.batches("audio", hears_commands(formants, voices(formants)[:2]), 10, 0, examples=3)
    one, other, next_one = batches(4), batches(4), batches(5)
    assert torch.equal(one.extras["audio"], other.extras["audio"])
    assert torch.equal(one.tokens, other.tokens)
    assert not torch.equal(one.extras["audio"], next_one.extras["audio"])
    assert set(LETTERS) > set("ABC")
