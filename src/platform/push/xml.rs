//! The XML of pushes, read event by event within bounds.
//!
//! WeChat sends elements with text, CDATA sections and other elements, and nothing else. Everything
//! by which XML can refer to something outside of the text, or can grow, is refused: document types,
//! entities except the five of XML itself, and processing instructions.

use std::borrow::Cow;

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
use zeroize::Zeroizing;

use super::fields::{PushField, PushFields};

/// Name of the one element that contains all others.
const ROOT: &str = "xml";

/// Maximum depth of elements: 16. The deepest push that WeChat documents has four levels.
const MAX_DEPTH: usize = 16;

/// Maximum number of elements: 1,024. The longest lists of WeChat have dozens of elements.
const MAX_ELEMENTS: usize = 1_024;

/// The reason why a text is not the XML of a push.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum XmlError {
    /// A tag is not closed or not opened, the root is missing or repeated, or a name is no name.
    Malformed,
    /// The XML has a document type, an entity that XML does not predefine, a processing instruction, or
    /// an encoding other than UTF-8.
    Forbidden,
    /// The XML has too many elements, or they are nested too deeply.
    TooComplex,
}

/// Reads the fields inside the root of a push's XML.
///
/// # Errors
/// Returns why the text is not the XML of a push.
pub(crate) fn parse(xml: &str) -> Result<PushFields, XmlError> {
    let mut reader = Reader::from_str(xml);
    let mut tree = Tree::default();
    let mut is_first = true;
    loop {
        let event = reader.read_event().map_err(|_| XmlError::Malformed)?;
        match event {
            Event::Start(start) => tree.open(&start)?,
            Event::End(_) => tree.close()?,
            Event::Empty(start) => {
                tree.open(&start)?;
                tree.close()?;
            }
            Event::Text(text) => tree.text(&text.xml10_content())?,
            Event::CData(text) => tree.verbatim(&text.xml10_content())?,
            Event::GeneralRef(reference) => tree.verbatim(&resolve(&reference)?)?,
            Event::Comment(_) => {}
            Event::Decl(declaration) if is_first => check_encoding(&declaration)?,
            Event::Decl(_) | Event::PI(_) | Event::DocType(_) => return Err(XmlError::Forbidden),
            Event::Eof => return tree.finish(),
        }
        is_first = false;
    }
}

/// Returns the text of a reference: of a character, or of one of the five entities of XML.
fn resolve(reference: &BytesRef<'_>) -> Result<Cow<'static, str>, XmlError> {
    let character = reference.resolve_char_ref();
    match character.map_err(|_| XmlError::Malformed)? {
        Some(character) => Ok(Cow::Owned(character.to_string())),
        None => resolve_xml_entity(reference)
            .map(Cow::Borrowed)
            .ok_or(XmlError::Forbidden),
    }
}

/// Checks that a declaration names no encoding other than UTF-8.
fn check_encoding(declaration: &BytesDecl<'_>) -> Result<(), XmlError> {
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(encoding)) if encoding.eq_ignore_ascii_case("utf-8") => Ok(()),
        Some(Ok(_)) => Err(XmlError::Forbidden),
        Some(Err(_)) => Err(XmlError::Malformed),
    }
}

/// The elements that have been read so far.
#[derive(Default)]
struct Tree {
    /// The open elements, outermost first.
    open: Vec<OpenElement>,
    root: Option<PushField>,
    elements: usize,
}

/// An element whose end has not been read yet.
struct OpenElement {
    field: PushField,
    /// Length of the text without the white space at its end that may have to be removed.
    trimmed: usize,
}

impl Tree {
    fn open(&mut self, start: &BytesStart<'_>) -> Result<(), XmlError> {
        let name = start.name();
        let name: &str = name.as_ref();
        let is_at_root = self.open.is_empty();
        if !is_name(name) || (is_at_root && (name != ROOT || self.root.is_some())) {
            return Err(XmlError::Malformed);
        }
        self.elements += 1;
        if self.open.len() == MAX_DEPTH || self.elements > MAX_ELEMENTS {
            return Err(XmlError::TooComplex);
        }
        self.open.push(OpenElement {
            field: PushField {
                name: name.into(),
                text: Zeroizing::default(),
                fields: PushFields::default(),
            },
            trimmed: 0,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), XmlError> {
        let mut closed = self.open.pop().ok_or(XmlError::Malformed)?;
        closed.field.text.truncate(closed.trimmed);
        match self.open.last_mut() {
            Some(parent) => parent.field.fields.0.push(closed.field),
            None => self.root = Some(closed.field),
        }
        Ok(())
    }

    /// Adds text between tags. White space at its start and end belongs to the layout of the XML,
    /// unless other text follows.
    fn text(&mut self, text: &str) -> Result<(), XmlError> {
        let Some(element) = self.open.last_mut() else {
            // Only white space may stand outside of the root.
            return match text.trim_ascii().is_empty() {
                true => Ok(()),
                false => Err(XmlError::Malformed),
            };
        };
        let added = match element.field.text.is_empty() {
            true => text.trim_ascii_start(),
            false => text,
        };
        let content = added.trim_ascii_end();
        if !content.is_empty() {
            element.trimmed = element.field.text.len() + content.len();
        }
        element.field.text.push_str(added);
        Ok(())
    }

    /// Adds text whose white space is part of the content.
    fn verbatim(&mut self, text: &str) -> Result<(), XmlError> {
        let element = self.open.last_mut().ok_or(XmlError::Malformed)?;
        element.field.text.push_str(text);
        element.trimmed = element.field.text.len();
        Ok(())
    }

    /// Returns the fields inside the root, which must be closed.
    fn finish(self) -> Result<PushFields, XmlError> {
        let is_closed = self.open.is_empty();
        let root = self.root.filter(|_| is_closed);
        root.map(|root| root.fields).ok_or(XmlError::Malformed)
    }
}

/// Returns `true` if a text can be the name of an element. The reader accepts any text without white
/// space.
fn is_name(text: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    text.starts_with(|c: char| c.is_alphabetic() || c == '_') && text.chars().all(is_part)
}
