//! The headers that decide which pages may frame a response.

use http::header::{CONTENT_SECURITY_POLICY, X_FRAME_OPTIONS};
use http::{HeaderMap, HeaderValue};

/// The directive that names the pages which may frame a response.
const FRAME_ANCESTORS: &str = "frame-ancestors";

/// The policy that lets pages of the response's own origin frame it, and no other pages.
const OWN_PAGES: &str = "frame-ancestors 'self'";

/// Lets pages of the same origin frame a response, and no other pages. Replaces the headers'
/// directives about frames, and keeps the other directives.
pub(super) fn allow_frames_of_own_pages(headers: &mut HeaderMap) {
    headers.remove(X_FRAME_OPTIONS);
    let policies: Vec<_> = headers
        .get_all(CONTENT_SECURITY_POLICY)
        .iter()
        .cloned()
        .collect();
    headers.remove(CONTENT_SECURITY_POLICY);
    let mut allowed = false;
    for policy in policies {
        let Some(mut rest) = policy.to_str().ok().map(without_frame_ancestors) else {
            // A policy that browsers may read differently stays as it is.
            headers.append(CONTENT_SECURITY_POLICY, policy);
            continue;
        };
        // The first policy gets the directive, so that one policy says everything.
        if !allowed && !rest.is_empty() {
            rest = format!("{rest}; {OWN_PAGES}");
            allowed = true;
        }
        if let Ok(rest) = HeaderValue::try_from(rest)
            && !rest.is_empty()
        {
            headers.append(CONTENT_SECURITY_POLICY, rest);
        }
    }
    if !allowed {
        headers.append(CONTENT_SECURITY_POLICY, HeaderValue::from_static(OWN_PAGES));
    }
}

/// Returns content security policies without their directives about frames. Commas separate the
/// policies of one header, and semicolons the directives of one policy.
fn without_frame_ancestors(policies: &str) -> String {
    let kept = policies.split(',').filter_map(|policy| {
        let directives = policy.split(';').map(str::trim).filter(|directive| {
            let name = directive
                .split_ascii_whitespace()
                .next()
                .unwrap_or_default();
            !name.is_empty() && !name.eq_ignore_ascii_case(FRAME_ANCESTORS)
        });
        let directives: Vec<_> = directives.collect();
        (!directives.is_empty()).then(|| directives.join("; "))
    });
    kept.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_own_origin_may_frame() {
        for (before, after) in [
            (&[][..], &[OWN_PAGES][..]),
            (&["frame-ancestors 'none'"], &[OWN_PAGES]),
            (
                &["default-src 'none'; Frame-Ancestors 'none' ; img-src *"],
                &["default-src 'none'; img-src *; frame-ancestors 'self'"],
            ),
            (
                &[
                    "default-src 'self', frame-ancestors *;",
                    "frame-ancestors *",
                    "img-src *",
                ],
                &["default-src 'self'; frame-ancestors 'self'", "img-src *"],
            ),
            (
                &["default-src 'self', img-src *"],
                &["default-src 'self', img-src *; frame-ancestors 'self'"],
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
            for policy in before {
                let policy = HeaderValue::from_static(policy);
                headers.append(CONTENT_SECURITY_POLICY, policy);
            }
            allow_frames_of_own_pages(&mut headers);
            let policies: Vec<_> = headers.get_all(CONTENT_SECURITY_POLICY).iter().collect();
            assert_eq!(policies, after, "{before:?}");
            assert!(!headers.contains_key(X_FRAME_OPTIONS));
        }
    }
}
