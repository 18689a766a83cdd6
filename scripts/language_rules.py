"""Make `data/filters/languages.json`, the quality rules of each language, from FineWeb-2's configuration files.

    git clone https://github.com/huggingface/fineweb-2; git clone https://github.com/huggingface/datatrove
    pip install pyyaml
    python scripts/language_rules.py fineweb-2/configs datatrove/src/datatrove/assets/tokenizer_assignment.csv

The keys are the labels of the language model lid.176. A language gets the rules of its usual script. Languages
that are written without blanks, and that `filters.words` cannot count, are left out.
"""

import csv
import json
import sys
from pathlib import Path

import yaml

from crawltalk.data.filters.language import labels

OUT = Path(__file__).parents[1] / "src" / "crawltalk" / "data" / "filters" / "languages.json"
WITHOUT_BLANKS = {"km", "lo", "my", "bo"}
"""Khmer, Lao, Burmese, Tibetan."""
OTHER_CODES = {"als": "gsw_Latn", "no": "nob_Latn", "tl": "fil_Latn"}
"""Where the model's labels are those of Wikipedia, and not of ISO 639."""


def main(configs: Path, table: Path) -> None:
    """Write a line for each language."""
    with open(table, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = dict(OTHER_CODES)
    for row in rows:
        usual = row["default_script"] == "TRUE"
        for code, is_default in ((row["code_1"], row["default_code_1"] == "TRUE"), (row["code_3"], True)):
            if code in labels() and usual and is_default and code not in WITHOUT_BLANKS:
                names.setdefault(code, f"{row['code_3']}_{row['script']}")
    lines = []
    for code, name in sorted(names.items()):
        path = configs / f"{name}.yml"
        if not path.is_file():
            continue
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
        ngrams = [share for _, share in config["top_n_grams"] + config["dup_n_grams"]]
        rules = {
            "source": name,
            "duplicate_lines": config["dup_line_frac"],
            "ngrams": ngrams,
            "word_length": [config["min_avg_word_length"], config["max_avg_word_length"]],
            "letter_share": config["max_non_alpha_words_ratio"],
            "terminal_lines": config["line_punct_thr"],
            "newlines": config["new_line_ratio"],
            "stop_words": config["stopwords"],
        }
        lines.append(f"{json.dumps(code)}: {json.dumps(rules, ensure_ascii=False)}")
    OUT.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(f"{len(lines)} languages")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
