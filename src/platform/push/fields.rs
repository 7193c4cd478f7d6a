//! The fields of a push: the elements of its XML, with their texts and the fields inside them.

use std::fmt;

use zeroize::Zeroizing;

/// The fields of a push, in the order of its XML. Nested elements are fields inside a field.
///
/// ```
/// use tower_wechat::platform::PushFields;
///
/// /// Returns the name of a company that has been registered, from the push
/// /// `notify_third_fasteregister`.
/// fn company(fields: &PushFields) -> Option<&str> {
///     fields.field("info")?.fields().text("name")
/// }
/// ```
#[derive(Clone, Default)]
pub struct PushFields(pub(super) Vec<PushField>);

impl PushFields {
    /// Returns the text of the first field with this name, or `None` if there is no such field.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.field(name).map(PushField::text)
    }

    /// Returns the first field with this name, or `None` if there is no such field.
    pub fn field(&self, name: &str) -> Option<&PushField> {
        self.iter().find(|field| field.name() == name)
    }

    /// Returns all fields in their order. Lists repeat a name.
    pub fn iter(&self) -> std::slice::Iter<'_, PushField> {
        self.0.iter()
    }

    /// Returns `true` if there is no field.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the text of the only field with this name, without white space around it. Returns
    /// `None` if there is no such field or if its text is empty.
    ///
    /// # Errors
    /// There are several fields with this name, so that another reader of the same XML may see
    /// another one.
    pub(super) fn only(&self, name: &'static str) -> Result<Option<&str>, RepeatedField> {
        let mut named = self.iter().filter(|field| field.name() == name);
        let first = named.next();
        if named.next().is_some() {
            return Err(RepeatedField(name));
        }
        Ok(first
            .map(|field| field.text().trim())
            .filter(|text| !text.is_empty()))
    }
}

/// The name of a field that must not be repeated, and is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RepeatedField(pub(super) &'static str);

impl<'a> IntoIterator for &'a PushFields {
    type Item = &'a PushField;
    type IntoIter = std::slice::Iter<'a, PushField>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Prints the names of the fields. Texts may be secrets or users' messages.
impl fmt::Debug for PushFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// A field of a push: the name of an element, and its text or the fields inside it.
///
/// ```
/// use tower_wechat::platform::{PushField, PushFields};
///
/// /// Returns the pictures that a user has sent with a menu of the account.
/// fn pictures(push: &PushFields) -> Vec<&str> {
///     let list = push.field("SendPicsInfo").and_then(|info| info.fields().field("PicList"));
///     let items = list.map(PushField::fields).into_iter().flatten();
///     items.filter_map(|item| item.fields().text("PicMd5Sum")).collect()
/// }
/// ```
#[derive(Clone)]
pub struct PushField {
    pub(super) name: Box<str>,
    pub(super) text: Zeroizing<String>,
    pub(super) fields: PushFields,
}

impl PushField {
    /// Returns the name of the element.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the text of the element, which may be empty. White space around the text or around a
    /// CDATA section is not part of the text; white space inside a CDATA section is.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Returns the fields inside the element.
    pub fn fields(&self) -> &PushFields {
        &self.fields
    }
}

/// Prints the name, and the fields inside. The text may be a secret or a user's message.
impl fmt::Debug for PushField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        match self.fields.is_empty() {
            true => Ok(()),
            false => write!(f, " {:?}", self.fields),
        }
    }
}
