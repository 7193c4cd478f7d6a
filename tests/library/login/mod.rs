//! Tests of the login over HTTP: an application, the simulator as WeChat, and a client that keeps
//! cookies.

mod attacks;
mod bad_input;
mod cookie_sizes;
mod duplicates;
mod failures;
mod flow;
mod frame;
mod granted_user_info;
mod harness;
mod late_logins;
mod on_behalf;
mod on_login;
mod proxies;
mod qr_code;
mod return_origins;
mod return_to;
mod scopes;
mod sessions;
mod several_accounts;
mod shared_phone;
mod snapshots;
mod verification;
mod website;
mod website_of_accounts;
mod website_sessions;
