"""HTML as the web serves it: an article between navigation, cookie banner, link lists, share buttons and
footer.

Each site has markup of its own. None of it is written for our extractor, which does not know the class names in
this file.
"""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Content:
    """What a page says, and where."""

    url: str
    language: str
    title: str
    description: str
    paragraphs: Sequence[str]
    section: str
    related: Sequence[tuple[str, str]]
    """(title, URL) of other pages of the site."""
    charset: str = "utf-8"
    declares_charset: bool = True


WORDS = {
    "en": ("Home", "Sections", "About us", "Contact", "Log in", "Search", "Related articles", "Share", "Cookies help us deliver "
           "our services. By using our services, you agree to our use of cookies.", "Accept all", "All rights reserved.",
           "Privacy policy", "Comments are closed.", "You may also like"),
    "fr": ("Accueil", "Rubriques", "À propos", "Contact", "Connexion", "Rechercher", "Articles liés", "Partager", "Ce site utilise "
           "des cookies pour améliorer votre expérience.", "Tout accepter", "Tous droits réservés.", "Confidentialité",
           "Les commentaires sont fermés.", "À lire aussi"),
    "es": ("Inicio", "Secciones", "Quiénes somos", "Contacto", "Entrar", "Buscar", "Artículos relacionados", "Compartir", "Este "
           "sitio utiliza cookies para mejorar su experiencia.", "Aceptar todo", "Todos los derechos reservados.", "Privacidad",
           "Los comentarios están cerrados.", "También le puede interesar"),
}  # fmt: skip


def _list(links: Sequence[tuple[str, str]]) -> str:
    return "".join(f'<li><a href="{escape(url)}">{escape(title)}</a></li>' for title, url in links)


def _head(page: Content, style: str) -> str:
    charset = f'<meta charset="{page.charset}">' if page.declares_charset else ""
    data = json.dumps(
        {"@context": "https://schema.org", "@type": "Article", "headline": page.title}, ensure_ascii=False
    )
    data = data.replace("</", "<\\/")  # a title must not end the script
    return (
        f'<!DOCTYPE html>\n<html lang="{page.language}">\n<head>{charset}<title>{escape(page.title)} - {escape(page.section)}</title>'
        f'<meta name="description" content="{escape(page.description)}"><link rel="canonical" href="{escape(page.url)}">'
        f'<style>{style}</style><script type="application/ld+json">{data}</script>'
        "<script>window.dataLayer=window.dataLayer||[];function gtag(){dataLayer.push(arguments)}</script></head>\n"
    )


def _body(page: Content, tag: str = "p") -> str:
    return "\n".join(f"<{tag}>{escape(paragraph)}</{tag}>" for paragraph in page.paragraphs)


def encyclopedia(page: Content) -> str:
    """A modern page: header, main, article, aside, footer."""
    w = WORDS[page.language]
    return (
        f"{_head(page, 'body{margin:0} .hero{padding:2rem}')}<body><div class='consent' role='dialog'><p>{w[8]}</p>"
        f"<button>{w[9]}</button></div>\n<header><a href='/'>{w[0]}</a><nav><ul><li><a href='/sections'>{w[1]}</a></li>"
        f"<li><a href='/about'>{w[2]}</a></li><li><a href='/contact'>{w[3]}</a></li><li><a href='/login'>{w[4]}</a></li></ul></nav>"
        f"<form><input placeholder='{w[5]}'></form></header>\n<nav class='crumbs'><a href='/'>{w[0]}</a> › "
        f"<a href='#'>{escape(page.section)}</a></nav>\n<main><article><h1>{escape(page.title)}</h1>\n"
        f"<p class='lede'>{escape(page.description)}</p>\n{_body(page)}\n</article>"
        f"<div class='share'><span>{w[7]}</span> <a href='#'>Facebook</a> <a href='#'>X</a> <a href='#'>WhatsApp</a></div></main>\n"
        f"<aside><h2>{w[6]}</h2><ul>{_list(page.related)}</ul></aside>\n<section id='comments'><p>{w[12]}</p></section>"
        f"<footer><p>© 2024 {escape(page.section)}. {w[10]}</p><a href='/privacy'>{w[11]}</a></footer></body></html>\n"
    )


def library(page: Content) -> str:
    """An older page: nested divs, a side column before the text, a table of links at the end."""
    w = WORDS[page.language]
    cells = "".join(f'<td><a href="{escape(url)}">{escape(title)}</a></td>' for title, url in page.related)
    return (
        f"{_head(page, '#left{float:left}')}<body>\n<div id='top-menu'><a href='/'>{w[0]}</a> | <a href='/sections'>{w[1]}</a> | "
        f"<a href='/contact'>{w[3]}</a></div>\n<div id='wrap'><div id='left' class='sidebar'><h3>{w[13]}</h3><ul>{_list(page.related)}"
        f"</ul></div>\n<div id='content'><div class='post'><h1>{escape(page.title)}</h1><div class='sub'>{escape(page.description)}"
        f"</div>\n{_body(page)}\n</div></div></div>\n<table class='more'><tr>{cells}</tr></table>"
        f"<div id='footer'>© 2023. {w[10]} <a href='/privacy'>{w[11]}</a></div><script>gtag('config','G-1');</script></body></html>\n"
    )


def blog(page: Content) -> str:
    """A blog: sections, a byline of links, a newsletter box."""
    w = WORDS[page.language]
    return (
        f"{_head(page, '.entry{max-width:40em}')}<body class='single'>\n<div role='banner'><a href='/'>{escape(page.section)}</a></div>"
        f"<div role='navigation' class='menu'><ul>{_list(page.related[:4])}</ul></div>\n<section class='entry'><h1>"
        f"{escape(page.title)}</h1><h2>{escape(page.description)}</h2>\n{_body(page)}\n</section>\n<div class='social-share'><a href='#'>"
        f"{w[7]}</a> <a href='#'>Twitter</a> <a href='#'>Pinterest</a></div><div class='newsletter'><form><label>{w[4]}</label>"
        f"<input type='email'></form></div><div class='related-posts'><h4>{w[6]}</h4><ul>{_list(page.related)}</ul></div>"
        f"<div role='contentinfo'>{w[10]}</div><div class='cookie-notice'>{w[8]} <a href='#'>{w[9]}</a></div></body></html>\n"
    )


def portal(page: Content) -> str:
    """The output of an app: divs only, with meaningless class names, so that only the text distinguishes content
    from the rest.
    """
    w = WORDS[page.language]
    menu = "".join(
        f'<div class="x1n2on"><a class="x9f" href="#">{word}</a></div>' for word in (*w[:6], *w[11:12])
    )
    cards = "".join(
        f'<div class="x78zum"><a class="x9f" href="{escape(url)}"><div class="xa2">{escape(title)}</div></a></div>'
        for title, url in page.related
    )
    return (
        f"{_head(page, '.x1q{display:flex}.x78zum{padding:8px}')}<body class='x1q'>\n<div id='root'><div class='x1q0'>{menu}</div>\n"
        f"<div class='xk3'><div class='x1q'>{cards}</div>\n<div class='x4b'><h1 class='xt1'>{escape(page.title)}</h1>"
        f"<p class='xt2'>{escape(page.description)}</p>\n{_body(page)}\n</div>\n<div class='x2w'><a href='#'>{w[7]}</a> "
        f"<a href='#'>Facebook</a> <a href='#'>Reddit</a></div><div class='x7p'><a class='x9f' href='/more'>{w[13]}</a>{cards}</div></div>"
        f"\n<div class='x0e'>© 2024 {escape(page.section)}. {w[10]}</div></div><script>gtag('event','view')</script></body></html>\n"
    )


TEMPLATES: tuple[Callable[[Content], str], ...] = (encyclopedia, library, blog, portal)

GOODS = (
    "watches",
    "sneakers",
    "handbags",
    "mattresses",
    "vitamins",
    "headphones",
    "sunglasses",
    "phone cases",
    "perfume",
)
LATIN = "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor incididunt ut labore et dolore magna aliqua. "


def spam(rng: random.Random) -> tuple[str, list[str]]:
    """(title, paragraphs) of a spam page; each kind violates another quality rule."""
    goods = rng.choice(GOODS)
    kind = rng.randrange(5)
    if kind == 0:  # keywords stuffed
        stuffing = f"Buy cheap {goods} here, the best of the cheap {goods}, have cheap {goods} with you. "
        return f"Cheap {goods} online", [stuffing * rng.randint(12, 30)]
    if kind == 1:  # the same line again and again
        line = f"Order the {goods} of your dreams today and have them with free delivery to every city."
        return f"{goods.title()} sale", [line] * rng.randint(10, 25)
    if kind == 2:  # placeholder text
        story = f"This is the place for the story of our {goods} and of the people that make them. We are sure to have it soon."
        return "Untitled page", [
            f"{story} {LATIN}",
            f"Here is the list of all the {goods} that we have.",
        ]
    if kind == 3:  # symbols
        words = [
            f"The best of the #{rng.choice(GOODS).split()[0]} ... for you and all of your friends #{rng.randint(1, 99)} ..."
            for _ in range(rng.randint(12, 30))
        ]
        return f"#{goods.split()[0]} deals", [" ".join(words)]
    adjectives = ("black", "small", "new", "summer", "classic", "light", "large", "winter")
    items = [
        f"{rng.choice(adjectives).title()} {goods}, in stock, {rng.randint(1, 900)}.{rng.randint(10, 99)} USD"
        for _ in range(rng.randint(40, 90))
    ]
    return f"Price list of {goods}", [
        f"These are the prices of all the {goods} that we have in stock today, with tax and without the cost of the parcel.",
        *items,
    ]


STUBS = (
    ("Log in", ["Please enter your user name and your password to go on.", "Forgot your password?"]),
    (
        "Page not found",
        ["The page that you asked for does not exist or has been moved.", "Back to the start page"],
    ),
    ("Coming soon", ["We are working hard on this page. Come back soon to see it!"]),
    ("Thank you", ["Your message has been sent. We will answer as soon as we can."]),
    ("Search results", ["No results were found for your search. Try other words."]),
)
