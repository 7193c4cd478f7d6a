"""Checks that modules, main types and builders have an example that is compiled.

    cargo doc --no-deps --all-features && python3 .ci/examples.py target/doc/tower_wechat

Reads the pages that rustdoc has made. Each module, each builder and each type of MAIN_TYPES needs Rust
code on its page. Code that rustdoc ignores does not count. The doc tests compile the examples.
"""

import html
import pathlib
import re
import sys

PAGES = pathlib.Path(sys.argv[1])

MAIN_TYPES = {
    "AccountTokens",
    "CookieKeys",
    "Error",
    "JsonRejection",
    "Login",
    "MemoryStore",
    "RedisStore",
    "Rejection",
    "SealingKeys",
    "SessionCookie",
    "Simulator",
    "Tickets",
    "TokenCenter",
    "TrustedHeader",
    "UserTokens",
    "WechatAccount",
    "WechatClient",
    "WechatLayer",
    "WechatUser",
}


EXAMPLE = re.compile(
    r'<div class="example-wrap([^"]*)">(?:(?!<div class="example-wrap).)*?'
    r'<pre class="rust rust-example-rendered"><code>(.*?)</code></pre>',
    re.DOTALL,
)
# The documentation of foreign traits starts here.
TRAITS = re.compile(r'<h2 id="(?:trait-implementations|synthetic-implementations|foreign-impls|implementors)"')


def has_example(page):
    """Returns True if the page has Rust code that rustdoc compiles."""
    own = TRAITS.split((PAGES / page).read_text())[0]
    return any(
        "ignore" not in kinds and html.unescape(re.sub(r"<[^>]*>", "", code)).strip()
        for kinds, code in EXAMPLE.findall(own)
    )


def modules(folder):
    """Yields the pages of a module and of the modules inside it."""
    yield f"{folder}index.html"
    text = (PAGES / folder / "index.html").read_text()
    for module in re.findall(r'<a class="mod" href="(\w+)/index\.html"', text):
        yield from modules(f"{folder}{module}/")


listed = re.findall(r'<a href="([^"#]+\.html)">', (PAGES / "all.html").read_text())
types = {}
for page in listed:
    if match := re.search(r"(?:struct|enum)\.(\w+)\.html$", page):
        types[match[1]] = page
if unknown := sorted(MAIN_TYPES - set(types)):
    sys.exit(f"rustdoc made no page for {', '.join(unknown)}: was each renamed?")
chosen = [page for name, page in types.items() if name in MAIN_TYPES or name.endswith("Builder")]
# Guides are pages of prose.
pages = sorted(page for page in {*modules(""), *chosen} if not page.startswith("guide/"))
lacking = [page for page in pages if not has_example(page)]
if lacking:
    sys.exit("\n".join(f"{page}: no example" for page in lacking))
print(f"{len(pages)} modules, main types and builders, each with an example")
