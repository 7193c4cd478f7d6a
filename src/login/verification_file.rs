//! Files by which WeChat verifies the ownership of a domain.

use crate::error::Error;

/// Maximum length of a file's name without `.txt`, and of a file's content: 128 bytes. WeChat's
/// files have names of 26 characters and contents of 16.
const MAX_TEXT_BYTES: usize = 128;

/// File at the root of the public URL, by which WeChat verifies the ownership of the domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VerificationFile {
    /// The path of the file: a slash and the file's name.
    pub(super) path: String,
    pub(super) content: String,
}

impl VerificationFile {
    /// Creates a verification file from its name and content. Removes blanks and newlines around
    /// the content.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`](crate::ErrorKind::Configuration): the name or the content
    /// cannot be that of a verification file.
    pub(super) fn new(name: &str, content: &str) -> Result<Self, Error> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        let stem = name.strip_suffix(".txt").unwrap_or_default();
        if stem.is_empty() || stem.len() > MAX_TEXT_BYTES || !stem.bytes().all(plain) {
            return Err(Error::configuration(format!(
                "{name:?} is no name of a verification file; it is called as mp.weixin.qq.com \
                 calls it, such as MP_verify_0123456789abcdef.txt"
            )));
        }
        let content = content.trim();
        let fits = (1..=MAX_TEXT_BYTES).contains(&content.len());
        if !fits || !content.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::configuration(format!(
                "the content of {name} is not one word of at most {MAX_TEXT_BYTES} letters: take the \
                 file's own, as mp.weixin.qq.com lets you download it"
            )));
        }
        Ok(Self {
            path: format!("/{name}"),
            content: content.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn accepts_plain_names_and_one_word() {
        for name in ["MP_verify_Ab1.txt", "WW_verify_Ab1.txt", "a1b2c3d4e5.txt"] {
            let file = VerificationFile::new(name, " Ab1\r\n").unwrap();
            assert_eq!(file.path, format!("/{name}"));
            assert_eq!(file.content, "Ab1");
        }
        for name in [
            "",
            ".txt",
            "MP_verify_Ab1",
            "MP_verify_Ab1.html",
            "/MP_verify_Ab1.txt",
            "a/b.txt",
            "../a.txt",
            "a%2fb.txt",
            "a b.txt",
            "页.txt",
            &format!("{}.txt", "a".repeat(MAX_TEXT_BYTES + 1)),
        ] {
            let error = VerificationFile::new(name, "Ab1").expect_err(name);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{name}");
        }
        let long = "a".repeat(MAX_TEXT_BYTES + 1);
        for content in ["", " \n", "a b", "a\nb", "页", long.as_str()] {
            let error = VerificationFile::new("a.txt", content).expect_err(content);
            assert_eq!(error.kind(), ErrorKind::Configuration, "{content:?}");
        }
    }
}
