//! Callbacks in a frame, which arrive without the login's cookies at first.
//!
//! WeChat's widget `wxLogin.js` with `self_redirect: true` loads the callback in a frame of the
//! application's page. A page of WeChat leads the frame there, so that the request is cross-site.
//! Browsers send no `SameSite=Lax` cookie with such a request, and discard the cookies of its
//! response. A redirect stays cross-site.
//!
//! The reply to this first request is a page that loads the same URL again. The second request
//! comes from a page of this origin: it has the cookies, and the cookies of its response are kept.
//! The query of the page's URL has a marker. If the marked request is cross-site too, it is handled
//! like any other callback, so that no browser loads the page twice.
//!
//! The page is sent before the query is parsed and the state is verified. No code is spent or bound
//! by the first request.

use http::Method;

use crate::identity::RequestHead;
use crate::login::frame_page::FramePage;
use crate::login::handler::LoginHandler;
use crate::login::reply::{LoginReply, ReplyContent};
use crate::navigation::{is_cross_site, is_in_frame};

impl LoginHandler {
    /// Returns `true` for a callback that a browser loads in a frame, if the login has a website.
    /// Pages of this origin may frame the response.
    pub(in crate::login) fn is_callback_in_frame(&self, head: &RequestHead<'_>) -> bool {
        self.website().is_some()
            && is_in_frame(head.headers)
            && self.is_callback_path(head.original_uri().path())
    }

    /// Returns the page that loads a callback in a frame again, or `None` if the callback is handled
    /// at once: outside of frames, if it is not cross-site, or if it was loaded again already.
    pub(in crate::login) fn reload_in_frame(&self, head: &RequestHead<'_>) -> Option<LoginReply> {
        let query = head.uri.query().unwrap_or_default();
        if *head.method != Method::GET
            || !self.is_callback_in_frame(head)
            || !is_cross_site(head.headers)
            || FramePage::is_marked(query)
        {
            return None;
        }
        // The path is that of the settings and not that of the request, so that no request can make
        // the page lead elsewhere.
        let settings = &self.0.settings;
        let mut path = settings.public_url.public_path(&settings.callback_path);
        let has_slash = head.original_uri().path().ends_with('/');
        if has_slash && !path.ends_with('/') {
            path.push('/');
        }
        Some(LoginReply::new(ReplyContent::FramePage(FramePage::new(
            &path, query,
        ))))
    }
}
