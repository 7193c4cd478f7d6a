//! The XML of pushes, as WeChat sends it: elements with CDATA and line breaks between them.

use std::fmt::Write;

/// XML with the root element `xml`.
#[derive(Debug)]
pub(super) struct Xml(String);

impl Xml {
    pub(super) fn new() -> Self {
        Self("<xml>".to_owned())
    }

    /// Adds an element whose text is in CDATA. `]]>` in the text would end it, and is divided between
    /// two.
    pub(super) fn text(self, name: &str, value: &str) -> Self {
        let value = value.replace("]]>", "]]]]><![CDATA[>");
        self.raw(name, &format!("<![CDATA[{value}]]>"))
    }

    pub(super) fn number(self, name: &str, value: u64) -> Self {
        self.raw(name, &value.to_string())
    }

    fn raw(mut self, name: &str, content: &str) -> Self {
        // Writing to a `String` cannot fail.
        let _ = writeln!(self.0, "<{name}>{content}</{name}>");
        self
    }

    pub(super) fn finish(self) -> String {
        self.0 + "</xml>"
    }
}

/// Returns the text of the first element with this name, without CDATA.
pub(super) fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, after) = xml.split_once(&format!("<{name}>"))?;
    let (text, _) = after.split_once(&format!("</{name}>"))?;
    let text = text.trim();
    let inner = text.strip_prefix("<![CDATA[");
    Some(
        inner
            .and_then(|text| text.strip_suffix("]]>"))
            .unwrap_or(text),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_written_and_read() {
        let xml = Xml::new().text("A", "a").number("B", 2).text("C", "]]>");
        let xml = xml.finish();
        assert_eq!(
            xml,
            "<xml><A><![CDATA[a]]></A>\n<B>2</B>\n<C><![CDATA[]]]]><![CDATA[>]]></C>\n</xml>"
        );
        assert_eq!(element(&xml, "A"), Some("a"));
        assert_eq!(element(&xml, "B"), Some("2"));
        assert_eq!(element(&xml, "D"), None);
    }
}
