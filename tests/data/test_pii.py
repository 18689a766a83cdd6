"""Addresses beside letters of any script, and IPv6 in its forms."""

import time
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.data.filters.pii import EMAIL, IP, IP6, public_ip, replace_pii


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("请联系zhang.wei@mail.example.cn谢谢大家。", f"请联系{EMAIL}谢谢大家。"),
        ("メールはinfo@foo.co.jpまで。", f"メールは{EMAIL}まで。"),
        ("문의:kim_1@naver.com으로 보내", f"문의:{EMAIL}으로 보내"),
        ("邮箱：a-b@qq.com，电话", f"邮箱：{EMAIL}，电话"),
        ("ติดต่อinfo@foo.co.thครับ", f"ติดต่อ{EMAIL}ครับ"),
        ("連絡先 info＠foo.co.jp", f"連絡先 {EMAIL}"),
        ("josé@exämple.de, почта@пример.рф ...bob@x.org.", f"{EMAIL}, {EMAIL} ...{EMAIL}."),
        ("服务器8.8.8.8的机器，内网10.0.0.1的", f"服务器{IP}的机器，内网10.0.0.1的"),
        ("see 2001:4860:4860::8888.", f"see {IP6}."),
        ("[2001:4860:4860:0:0:0:0:8844]:443/x", f"[{IP6}]:443/x"),
        ("地址2400:CB00:2048:1::C629:D7A2/64的", f"地址{IP6}/64的"),
        ("IPv6:2a00:1450::5, node:2a00:1450::6", f"IPv6:{IP6}, node:{IP6}"),
        ("::ffff:8.8.8.8 2002:0808:0808::1 64:ff9b::8.8.8.8", f"{IP6} {IP6} 64:ff9b::{IP}"),
    ],
)
def test_an_address_is_replaced_and_what_stands_beside_it_is_kept(text: str, expected: str):
    found, count = replace_pii(text)
    assert found == expected and count > 0 and replace_pii(found) == (found, 0)


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1%eth0 ::1 :: fd00::1 2001:db8::5 ff02::1 ::ffff:192.168.0.1 2002:0a00:0001::1",
        "at 12:30:45 and 10:20:30:40:50:60:70:80; 00:1b:44:11:3a:b7",
        "std::vector a::b abc::def face::book x2001:4860::1 2001:4860::1z",
        "微信号 zhang@ 或者 @zhang，每人1.2元",
    ],
)
def test_what_is_no_public_address_stays(text: str):
    assert replace_pii(text) == (text, 0)


@given(st.integers(0, 2**128 - 1).map(IPv6Address), st.sampled_from(["compressed", "exploded", "upper"]))
def test_exactly_the_public_ones_of_all_ipv6_addresses_are_replaced(address: IPv6Address, form: str):
    text = address.exploded if form == "exploded" else str(address)
    text = text.upper() if form == "upper" else text
    expected = IP6 if public_ip(str(address)) else text
    assert replace_pii(f"从{text} 到")[0] == f"从{expected} 到"


@pytest.mark.parametrize(
    "text", ["a.b" * 40_000 + " @ ", "1:" * 50_000 + "::", "@a.a." * 20_000, "x@" + "a-" * 40_000]
)
def test_no_text_takes_long(text: str):
    start = time.process_time()
    replace_pii(text)
    assert time.process_time() - start < 1
