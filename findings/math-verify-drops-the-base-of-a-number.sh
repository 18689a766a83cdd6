#!/usr/bin/env bash
# math-verify 0.9.0 (latex2sympy2_extended 1.11.0), default settings: MATH has golds such as 52_8, and the subscript is dropped when
# they are read. So 52_7 is the same answer, and so is 52_8 for a gold that is plain 52. Three more that a policy could be paid for:
#
#   gold                 answer                                verdict
#   52_8                 52_7                                  equal
#   .0000672             .0000671                              equal: plain numbers are rounded to six decimals
#   1                    5=1                                   equal: of an equation the right side counts
#   5.4 \text{ cents}    5.4 \text{ cents} or \dfrac{33}{100}  equal: from the first \text{...} on all is a unit
#
# and 1000 is not 1e3, which is read as E times 3.
# The way out: compare plain numbers and numbers with a base before math-verify sees them, and refuse answers of several parts.
#
# Needs: python3 with venv, and pip's index. Installs into a temporary folder.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv" > "$folder/log" 2>&1 && "$folder/venv/bin/pip" install -q math-verify==0.9.0 latex2sympy2_extended==1.11.0 \
  >> "$folder/log" 2>&1 || { cat "$folder/log"; echo "FAILED: math-verify cannot be had here"; exit 1; }
seen=$("$folder/venv/bin/python" - <<'PY'
from math_verify import parse, verify

for gold, answer in [
    ("52_8", "52_7"),
    (".0000672", ".0000671"),
    ("1", "5=1"),
    (r"5.4 \text{ cents}", r"5.4 \text{ cents} or \dfrac{33}{100}"),
    ("1000", "1e3"),
    ("52_8", "51_8"),
]:
    print(verify(parse(f"${gold}$"), parse(f"${answer}$")), gold, "|", answer)
PY
)
expected='True 52_8 | 52_7
True .0000672 | .0000671
True 1 | 5=1
True 5.4 \text{ cents} | 5.4 \text{ cents} or \dfrac{33}{100}
False 1000 | 1e3
False 52_8 | 51_8'
printf '%s\n' "$seen"
[ "$seen" = "$expected" ] || { printf 'CHANGED: expected\n%s\n' "$expected"; exit 1; }
echo "as described"
