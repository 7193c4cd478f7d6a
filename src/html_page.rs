//! Pages for phones, with a title, sentences and buttons in Chinese and English.

use std::fmt::Write;

/// A text in Chinese and in English.
pub(crate) type Bilingual<'a> = [&'a str; 2];

/// A page without scripts and without external resources. All of its texts are escaped.
#[derive(Default)]
pub(crate) struct HtmlPage<'a> {
    pub(crate) icon: Icon,
    pub(crate) title: Bilingual<'a>,
    pub(crate) sentences: &'a [Bilingual<'a>],
    /// A text without a translation, such as an AppID or an error code. It stands below the sentences.
    pub(crate) detail: Option<&'a str>,
    /// The buttons. The first one stands out.
    pub(crate) buttons: &'a [Button<'a>],
    /// Number of seconds after which browsers load the page again.
    pub(crate) refresh_secs: Option<u64>,
}

/// A link that looks like a button.
pub(crate) struct Button<'a> {
    pub(crate) text: Bilingual<'a>,
    /// The URL to which the button leads. An empty URL is that of the page itself.
    pub(crate) url: &'a str,
}

/// The drawing at the top of a page.
#[derive(Clone, Copy, Default)]
pub(crate) enum Icon {
    /// An exclamation mark.
    #[default]
    Notice,
    /// A check mark.
    #[cfg(feature = "platform")]
    Done,
    /// An arrow to the right.
    #[cfg(feature = "platform")]
    Forward,
}

impl Icon {
    /// Returns the SVG path of the drawing, which lies in a circle.
    fn path(self) -> &'static str {
        match self {
            Self::Notice => "M12 7v6M12 16.5v.01",
            #[cfg(feature = "platform")]
            Self::Done => "M7.5 12.5l3 3 6-6.5",
            #[cfg(feature = "platform")]
            Self::Forward => "M7 12h10M13 8l4 4-4 4",
        }
    }
}

impl HtmlPage<'_> {
    /// The content security policy of the page: it loads nothing, and no page may frame it.
    pub(crate) const CONTENT_SECURITY_POLICY: &'static str = "default-src 'none'; \
        style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

    /// Returns the page as HTML.
    pub(crate) fn html(&self) -> String {
        let [title, title_en] = self.title.map(escape_html);
        let mut html = String::with_capacity(4_096);
        html.push_str(
            "<!doctype html><html lang=\"zh-CN\"><head><meta charset=\"utf-8\">\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
             <meta name=\"robots\" content=\"noindex\">",
        );
        // Writing to a string does not fail.
        if let Some(seconds) = self.refresh_secs {
            let _ = write!(html, "<meta http-equiv=\"refresh\" content=\"{seconds}\">");
        }
        let _ = write!(
            html,
            "<title>{title}</title><style>{CSS}</style></head>\
             <body><main><svg viewBox=\"0 0 24 24\" fill=\"none\" stroke=\"currentColor\" \
             stroke-width=\"1.5\" stroke-linecap=\"round\" aria-hidden=\"true\">\
             <circle cx=\"12\" cy=\"12\" r=\"10\"/><path d=\"{}\"/></svg>\
             <h1>{title} <span class=\"en\" lang=\"en\">{title_en}</span></h1>",
            self.icon.path()
        );
        for sentence in self.sentences {
            let [chinese, english] = sentence.map(escape_html);
            let _ = write!(
                html,
                "<p>{chinese}</p><p class=\"en\" lang=\"en\">{english}</p>"
            );
        }
        if let Some(detail) = self.detail {
            let _ = write!(html, "<p><code>{}</code></p>", escape_html(detail));
        }
        for button in self.buttons {
            let [chinese, english] = button.text.map(escape_html);
            let _ = write!(
                html,
                "<a href=\"{}\">{chinese} <span class=\"en\" lang=\"en\">{english}</span></a>",
                escape_html(button.url)
            );
        }
        html.push_str("</main></body></html>");
        html
    }
}

const CSS: &str = "\
:root{color-scheme:light dark;--ink:#191919;--soft:#737373;--ground:#ededed;--card:#fff;--accent:#07864a;--on:#fff}\
@media(prefers-color-scheme:dark){:root{--ink:#e6e6e6;--soft:#9b9b9b;--ground:#111;--card:#1e1e1e;--accent:#33c481;--on:#06210f}}\
*{box-sizing:border-box}\
body{margin:0;min-height:100vh;display:flex;padding:20px;background:var(--ground);color:var(--ink);\
font:17px/1.6 -apple-system,'PingFang SC','Noto Sans CJK SC','Microsoft YaHei',sans-serif}\
main{margin:auto;width:100%;max-width:420px;padding:40px 28px 32px;border-radius:16px;\
background:var(--card);text-align:center}\
svg{width:56px;height:56px;color:var(--soft)}\
h1{margin:16px 0 8px;font-size:21px;line-height:1.35}p{margin:0;color:var(--soft);text-wrap:balance}\
.en{font-size:14px}h1 .en{display:block;margin-top:4px;font-weight:400;color:var(--soft)}\
p.en{margin-top:6px}\
a{display:block;margin-top:28px;padding:12px;border-radius:10px;background:var(--accent);color:var(--on);\
font-weight:600;text-decoration:none}\
a:focus-visible{outline:3px solid var(--ink);outline-offset:2px}\
a .en{display:block;font-weight:400;opacity:.9;line-height:1.3}\
a+a{margin-top:12px;background:none;color:var(--accent);box-shadow:inset 0 0 0 1px var(--accent)}\
code{display:inline-block;margin-top:12px;font-size:14px;overflow-wrap:anywhere}";

/// Escapes a text for use in HTML, as content or as the value of an attribute.
pub(crate) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_urls_are_escaped() {
        let evil = "\"><script>alert('1')</script>&";
        let page = HtmlPage {
            title: [evil; 2],
            sentences: &[[evil; 2]],
            detail: Some(evil),
            buttons: &[Button {
                text: [evil; 2],
                url: evil,
            }],
            refresh_secs: Some(1_740),
            ..HtmlPage::default()
        };
        let html = page.html();
        assert!(
            !html.contains("<script") && !html.contains("alert('1')"),
            "{html}"
        );
        let escaped = "&quot;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;&amp;";
        assert_eq!(html.matches(escaped).count(), 9);
        assert!(html.contains("<meta http-equiv=\"refresh\" content=\"1740\">"));
    }
}
