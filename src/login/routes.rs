//! The login's own paths: the callback, links that begin a login, and verification files.

#[cfg(feature = "axum")]
use std::collections::BTreeSet;

use http::Method;

use super::failure::LoginFailure;
use super::handler::LoginHandler;
use super::query::LoginLink;
use super::reply::{HandlerReply, LoginReply, ReplyContent};
use super::return_to::ReturnTo;
use crate::credential::UserId;
use crate::identity::RequestHead;

impl LoginHandler {
    /// Returns the paths that the login answers, with and without the prefix of the public URL. The
    /// callback and the login path are included with a slash at the end too.
    #[cfg(feature = "axum")]
    pub(crate) fn route_paths(&self) -> BTreeSet<String> {
        let settings = &self.0.settings;
        let own = [&settings.callback_path, &settings.login_path];
        let known = own.into_iter().flat_map(|path| {
            let plain = path.strip_suffix('/').unwrap_or(path);
            [plain.to_owned(), settings.public_url.public_path(plain)]
        });
        let known = known.flat_map(|path| [format!("{path}/"), path]);
        let files = settings.verification_files.iter().map(|file| &*file.path);
        let files = files.flat_map(|path| [path.to_owned(), settings.public_url.public_path(path)]);
        known.chain(files).collect()
    }

    /// Answers a request to one of the login's own paths. `bound_user` is the user of the layer's
    /// identity, if the login [binds to it](Self::binds_to_identity).
    pub(crate) fn handle(
        &self,
        head: &RequestHead<'_>,
        bound_user: Option<UserId>,
    ) -> HandlerReply {
        let reply = self.handle_own_path(head, bound_user);
        match self.is_callback_in_frame(head) {
            true => reply.in_frame(),
            false => reply,
        }
    }

    fn handle_own_path(&self, head: &RequestHead<'_>, bound_user: Option<UserId>) -> HandlerReply {
        if *head.method != Method::GET && *head.method != Method::HEAD {
            return HandlerReply::Ready(self.reply_with_failure(LoginFailure::BadRequest, None));
        }
        if let Some(file) = self.verification_file(head.original_uri().path()) {
            let file = ReplyContent::File(file.content.clone());
            return HandlerReply::Ready(LoginReply::new(file));
        }
        if self.is_callback_path(head.original_uri().path()) {
            return match self.reload_in_frame(head) {
                Some(page) => HandlerReply::Ready(page),
                None => self
                    .handler_of_callback(head.uri)
                    .handle_callback(head, bound_user),
            };
        }
        // A callback that a proxy has rewritten to the login path would begin another login.
        match self.reject_misrouted_callback(head) {
            Some(reply) => HandlerReply::Ready(reply),
            None => self.handle_login_link(head, bound_user.as_ref()),
        }
    }

    /// Answers a request to the login path, such as `/wechat/login?return_to=PATH&scope=SCOPE`. A
    /// link can widen the login's scope but not reduce it, because any person can create such a
    /// link. With `format=json`, the request comes from the script of a page that shows a QR code.
    fn handle_login_link(
        &self,
        head: &RequestHead<'_>,
        bound_user: Option<&UserId>,
    ) -> HandlerReply {
        let link = LoginLink::parse(head.uri.query().unwrap_or_default());
        let return_to = link.return_to.and_then(|page| self.parse_return_to(&page));
        if link.has_unencoded_parameters {
            self.log_unencoded_return_to(return_to.as_ref());
        }
        let return_to = return_to.unwrap_or_else(|| self.start_page());
        let Some(handler) = self.handler_for_browser(head.headers) else {
            return HandlerReply::Ready(self.reject_outside_wechat(&return_to));
        };
        if link.wants_qr_code {
            return HandlerReply::Ready(handler.begin_qr_code(return_to, head.headers));
        }
        let scope = handler.0.settings.scope;
        let scope = link.scope.map_or(scope, |wanted| scope.at_least(wanted));
        handler.begin_with_granted_scope(scope, return_to, head, bound_user)
    }

    /// Logs that a link to the login did not encode its `return_to`.
    fn log_unencoded_return_to(&self, page: Option<&ReturnTo>) {
        if let Some(more) = self.0.log_limiter.allow_line("unencoded") {
            let path = page.map_or("", ReturnTo::path);
            let path: String = path.chars().take(200).collect();
            tracing::warn!(
                target: "tower_wechat::login",
                app = %self.0.users.app_id(),
                ?path,
                more,
                "a link to the login did not encode its return_to, and its other parameters were added \
                 to the page; encode the page with encodeURIComponent, or create the link with \
                 Login::login_url"
            );
        }
    }
}
