"""Every public item has an example that is compiled: read from the pages that rustdoc has made.

    cargo doc --no-deps --all-features && python3 .ci/examples.py target/doc/tower_wechat

What that means: each module, type, trait and function has Rust code of its own on its page, and each
method stands in some code of its type's page, be it the type's example or its own. Variants, fields
and methods of foreign traits need none. Code that rustdoc ignores does not count. Whether the code
compiles is for the doc tests to say.
"""

import html
import pathlib
import re
import sys

PAGES = pathlib.Path(sys.argv[1])
# A table of contents, and guides without code.
PROSE = {"guide/index.html"} | {
    f"guide/{name}/index.html" for name in ["failures", "program", "demo"]
}

EXAMPLE = re.compile(
    r'<div class="example-wrap([^"]*)">(?:(?!<div class="example-wrap).)*?'
    r'<pre class="rust rust-example-rendered"><code>(.*?)</code></pre>',
    re.DOTALL,
)
# Where the docs of a type's methods begin, and where those of its traits.
METHODS = re.compile(r'<h2 id="(?:implementations|required-methods|provided-methods)"')
TRAITS = re.compile(r'<h2 id="(?:trait-implementations|synthetic-implementations|foreign-impls|implementors)"')
METHOD = re.compile(r'<section id="(?:ty)?method\.(\w+)"')


def examples(text):
    """The Rust code on a page, as text."""
    return "\n".join(
        html.unescape(re.sub(r"<[^>]*>", "", code))
        for kinds, code in EXAMPLE.findall(text)
        if "ignore" not in kinds
    )


def lacking(page):
    own = TRAITS.split((PAGES / page).read_text())[0]
    if not examples(METHODS.split(own)[0]) and page not in PROSE:
        yield f"{page}: no example"
    shown = examples(own)
    for method in dict.fromkeys(METHOD.findall(own)):
        if not re.search(rf"\b{method}\b", shown):
            yield f"{page}: no example has the method {method}"


def modules(folder):
    yield f"{folder}index.html"
    text = (PAGES / folder / "index.html").read_text()
    for module in re.findall(r'<a class="mod" href="(\w+)/index\.html"', text):
        yield from modules(f"{folder}{module}/")


listed = re.findall(r'<a href="([^"#]+\.html)">', (PAGES / "all.html").read_text())
pages = sorted({*listed, *modules("")})
methods = sum(len(set(METHOD.findall(TRAITS.split((PAGES / page).read_text())[0]))) for page in pages)
if len(pages) < 60 or methods < 200:
    sys.exit(f"{len(pages)} items with {methods} methods: this rustdoc makes other pages")
lines = [line for page in pages for line in lacking(page)]
if lines:
    sys.exit("\n".join(lines))
print(f"{len(pages)} public items and {methods} methods, all of them in examples")
