//! The reasons for which a push is refused, with the responses and the texts of the log.

use http::StatusCode;

use super::cipher::CipherError;
use super::fields::RepeatedField;
use super::signature::QueryError;
use super::xml::XmlError;

/// The reason why a request is not a genuine push for this platform.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PushRefusal {
    /// The application has set no keys, so that no push can be verified.
    NoKeys,
    /// The method is not POST.
    Method,
    /// The URL has no usable signature.
    Query(QueryError),
    /// The body is longer than [`MAX_BODY_BYTES`](super::body::MAX_BODY_BYTES).
    TooLarge,
    /// The client closed the connection before the end of the body, or the body did not arrive in
    /// time.
    Incomplete,
    /// The body is not the envelope of an encrypted push.
    Envelope(XmlError),
    /// The envelope is for another platform.
    ForeignEnvelope,
    /// No token of this platform has made the signature.
    Signature,
    /// The signature is right, and no key opens the message.
    Cipher(CipherError),
    /// The signature is right, and the message is not the XML of a push.
    Message(XmlError),
    /// A field of the message occurs twice, or belongs to another kind of message.
    Ambiguous,
    /// The signature is right, and the event inside the message is for another platform.
    ForeignEvent,
    /// The signature is right, and a field of an event is missing or unusable.
    Event(&'static str),
}

impl PushRefusal {
    /// Returns the status of the response.
    pub(super) fn status(self) -> StatusCode {
        match self {
            // WeChat repeats the push, perhaps to a process with keys.
            Self::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Query(QueryError::Unsigned) | Self::Signature => StatusCode::UNAUTHORIZED,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Query(QueryError::Repeated)
            | Self::Incomplete
            | Self::Envelope(_)
            | Self::ForeignEnvelope
            | Self::Cipher(_)
            | Self::Message(_)
            | Self::Ambiguous
            | Self::ForeignEvent
            | Self::Event(_) => StatusCode::BAD_REQUEST,
        }
    }

    /// Returns `true` if the signature of the push was right, so that only WeChat can have sent it.
    pub(super) fn is_signed(self) -> bool {
        match self {
            Self::Cipher(_)
            | Self::Message(_)
            | Self::Ambiguous
            | Self::ForeignEvent
            | Self::Event(_) => true,
            Self::NoKeys
            | Self::Method
            | Self::Query(_)
            | Self::TooLarge
            | Self::Incomplete
            | Self::Envelope(_)
            | Self::ForeignEnvelope
            | Self::Signature => false,
        }
    }

    /// Returns the result of the push for the metrics: few values, whatever a client sends.
    pub(super) fn metric_result(self) -> &'static str {
        match self {
            Self::NoKeys => "refused_no_keys",
            Self::Method => "refused_method",
            Self::Query(QueryError::Unsigned) | Self::Signature => "refused_signature",
            Self::TooLarge => "refused_too_large",
            Self::Query(QueryError::Repeated) | Self::Incomplete | Self::Envelope(_) => {
                "refused_malformed"
            }
            Self::ForeignEnvelope => "refused_foreign",
            Self::Cipher(_)
            | Self::Message(_)
            | Self::Ambiguous
            | Self::ForeignEvent
            | Self::Event(_) => "refused_unreadable",
        }
    }

    /// Returns the reason for the response and for the log.
    pub(super) fn reason(self) -> &'static str {
        match self {
            Self::NoKeys => "this process has no push keys",
            Self::Method => "the method is not POST",
            Self::Query(QueryError::Unsigned) => {
                "the URL has no timestamp, nonce or usable msg_signature"
            }
            Self::Query(QueryError::Repeated) => "a parameter of the URL occurs twice",
            Self::TooLarge => "the body is longer than 64 KiB",
            Self::Incomplete => "the body broke off or did not arrive in time",
            Self::Envelope(XmlError::Malformed) => "the body is not the XML of an encrypted push",
            Self::Envelope(XmlError::Forbidden) | Self::Message(XmlError::Forbidden) => {
                "the XML has a document type, an entity, a processing instruction or a foreign \
                 encoding"
            }
            Self::Envelope(XmlError::TooComplex) | Self::Message(XmlError::TooComplex) => {
                "the XML has too many or too deeply nested elements"
            }
            Self::ForeignEnvelope | Self::ForeignEvent => "the push is for another platform",
            Self::Signature => "no push token of this platform has made msg_signature",
            Self::Cipher(CipherError::Undecryptable) => "no push key opens the encrypted message",
            Self::Cipher(CipherError::Foreign) => "the encrypted message is for another AppID",
            Self::Message(XmlError::Malformed) => "the message is not XML",
            Self::Ambiguous => "a field of the message occurs twice or contradicts another one",
            Self::Event(problem) => problem,
        }
    }
}

impl From<QueryError> for PushRefusal {
    fn from(error: QueryError) -> Self {
        Self::Query(error)
    }
}

impl From<CipherError> for PushRefusal {
    fn from(error: CipherError) -> Self {
        Self::Cipher(error)
    }
}

impl From<RepeatedField> for PushRefusal {
    fn from(_: RepeatedField) -> Self {
        Self::Ambiguous
    }
}
