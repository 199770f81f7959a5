"""The page that asks for a name or a token, in the language of the station or the browser."""

from __future__ import annotations

import html

from reconpatch.station.page_settings import languages, words

_PAGE = """<!doctype html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{button} – ReConPatch</title>
<link rel="icon" href="{prefix}/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{prefix}/style.css">
</head>
<body class="login">
<main>
<h1>{title}</h1>
<form method="post" action="{prefix}/login">
{fields}
<p><input name="next" type="hidden" value="{next}">
<button class="primary">{button}</button></p>
<p role="alert">{said}</p>
</form>
<p>{help}</p>
</main>
</body>
</html>
"""
_TOKEN = (
    '<p><label for="token">{token}</label> <input id="token" name="token" type="password" '
    'autocomplete="current-password" required autofocus></p>'
)
_NAME = (
    '<p><label for="name">{name}</label> <input id="name" name="name" autocomplete="username" '
    'maxlength="80" required autofocus></p>\n<p><label for="password">{password}</label> '
    '<input id="password" name="password" type="password" autocomplete="current-password" required>'
    "</p>"
)


def language_of(station: str | None, accepted: str) -> str:
    """The language of the page before anybody can choose one.

    Args:
        station: what the configuration says.
        accepted: what the browser does, the header Accept-Language: the most wanted first.
    """
    wanted = [station, *(part.strip()[:2].lower() for part in accepted.split(","))]
    return next((code for code in wanted if code in languages()), "en")


def login_page(
    language: str, *, prefix: str, address: str, names: bool, said: str, wrong_token: bool
) -> str:
    """The page as HTML.

    Args:
        language: code of one that there is.
        prefix: path under which a proxy shows the service.
        address: where the person wanted to go.
        names: whether names and passwords are asked for, not the one token.
        said: what the service says of a login that was refused, in English; "": nothing.
        wrong_token: whether a wrong token was given.
    """
    text = {key: html.escape(str(value)) for key, value in words(language).items()}
    told = html.escape(said)
    if said and language != "en":
        told = f'<span lang="en">{told}</span>'
    fields = _NAME if names else _TOKEN
    return _PAGE.format(
        language=language,
        prefix=html.escape(prefix),
        next=html.escape(address),
        title=text["login.title"],
        button=text["login.button"],
        fields=fields.format(
            name=text["login.name"], password=text["login.password"], token=text["login.token"]
        ),
        said=text["login.wrong_token"] if wrong_token else told,
        help=text["login.help_names"] if names else text["login.help_token"],
    )
