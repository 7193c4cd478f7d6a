//! Tests of wrong settings of several accounts: one sentence, and no secret in it.

use super::{CLUB, SHOP, SITE};
use crate::processes::start_up::{PASSWORD, gives_up};

#[tokio::test(flavor = "multi_thread")]
async fn wrong_lists_of_accounts() {
    let list = |text: &str| text.replace("SECRET", PASSWORD);
    for (accounts, says) in [
        ("SECRET", "entry 1 is not APPID:SECRET"),
        ("wx1:SECRET,", "entry 2 is not APPID:SECRET"),
        (",wx1:SECRET", "entry 1 is not APPID:SECRET"),
        ("wx1:SECRET,SECRET", "entry 2 is not APPID:SECRET"),
        (
            "wx1:SECRET;wx2:SECRET,wx1:SECRET",
            "has the account wx1 twice",
        ),
        (":SECRET", "the AppID of entry 1"),
        ("wx 1:SECRET", "the AppID of entry 1"),
        ("wx1:SECRET,w\u{fc}:SECRET", "the AppID of entry 2"),
        ("wx1:", "entry 1 has no secret"),
        ("wx1: ,wx2:SECRET", "entry 1 has no secret"),
        ("wx1:SECRET with blanks", "white space"),
        ("wx1:SECRET, wx1:other", "has the account wx1 twice"),
    ] {
        gives_up(
            &[("WECHAT_ACCOUNTS", &list(accounts))],
            &["WECHAT_ACCOUNTS", says],
        )
        .await;
    }
    let accounts = list("wx1:SECRET");
    let both = [
        ("WECHAT_ACCOUNTS", &*accounts),
        ("WECHAT_APPID", "wx1"),
        ("WECHAT_SECRET", PASSWORD),
    ];
    gives_up(&both, &["WECHAT_ACCOUNTS", "WECHAT_APPID", "both set"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_selectors() {
    let accounts = format!("{SHOP}:{PASSWORD},{CLUB}:{PASSWORD}");
    for (by, says) in [
        ("segment", "neither path, nor host:"),
        ("path:", "neither path, nor host:"),
        ("Path", "neither path, nor host:"),
        ("header", "nor header:NAME"),
        ("header:", "nor header:NAME"),
        ("header:x account", "x account"),
        ("host:", "is not HOST=APPID"),
        ("host:a.b", "is not HOST=APPID"),
        ("host:a.b=wx1", "no account of WECHAT_ACCOUNTS"),
        (
            "host:a.b=SHOP",
            "no host for the account wxfedcba9876543210",
        ),
        ("host:a.b=SHOP,a.b=CLUB", "a.b twice"),
        ("host:a.b=SHOP,A.B=CLUB", "a.b twice"),
        ("host:a.b=SHOP,c.d=SHOP", "two hosts for the account"),
        ("host:a.b=SHOP,c.d=CLUB,", "is not HOST=APPID"),
        ("host:a.b/c=SHOP,c.d=CLUB", "is no host"),
        ("host:=SHOP,c.d=CLUB", "is no host"),
        ("host:u@a.b=SHOP,c.d=CLUB", "is no host"),
        ("host:a.b:99999=SHOP,c.d=CLUB", "is no host"),
        ("host:*.b=SHOP,c.d=CLUB", "is no host"),
        ("host:a.b=SHOP,A.B.=CLUB", "ends with a dot"),
        ("host:a.b.:8443=SHOP,c.d=CLUB", "ends with a dot"),
        ("host:a.b:80=SHOP,a.b=CLUB", "the host a.b"),
        ("header:Cookie", "another meaning in HTTP"),
        ("header:host", "another meaning in HTTP"),
        ("header:content-length", "another meaning in HTTP"),
        ("header:Sec-Fetch-Mode", "another meaning in HTTP"),
    ] {
        let by = by.replace("SHOP", SHOP).replace("CLUB", CLUB);
        let pairs = [("WECHAT_ACCOUNTS", &*accounts), ("ACCOUNT_BY", &by)];
        gives_up(&pairs, &["ACCOUNT_BY", says]).await;
    }
    let one = [
        ("WECHAT_APPID", "wx1"),
        ("WECHAT_SECRET", PASSWORD),
        ("ACCOUNT_BY", "path"),
    ];
    gives_up(&one, &["ACCOUNT_BY", "WECHAT_ACCOUNTS"]).await;
    let same = [
        ("WECHAT_ACCOUNTS", &*accounts),
        ("ACCOUNT_BY", "header:X-Account"),
        ("TRUSTED_USER_HEADER", "x-account"),
    ];
    gives_up(&same, &["ACCOUNT_BY", "TRUSTED_USER_HEADER"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_file_that_is_named_twice() {
    let accounts = format!("{SHOP}:{PASSWORD},{CLUB}:{PASSWORD}");
    for files in ["a.txt=x,a.txt=y", "a.txt=x, a.txt=x"] {
        let files = [("VERIFICATION_FILE", files)];
        gives_up(&files, &["VERIFICATION_FILE", "a.txt twice"]).await;
        let several = [("WECHAT_ACCOUNTS", &*accounts), files[0]];
        gives_up(&several, &["VERIFICATION_FILE", "a.txt twice"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_website_apps() {
    let accounts = format!("{SHOP}:{PASSWORD},{CLUB}:{PASSWORD}");
    let accounts = ("WECHAT_ACCOUNTS", &*accounts);
    let secret = ("WEBSITE_SECRET", PASSWORD);
    gives_up(&[accounts, secret], &["WEBSITE_APPID and WEBSITE_SECRET"]).await;
    gives_up(
        &[("WEBSITE_APPID", SITE)],
        &["WEBSITE_APPID and WEBSITE_SECRET"],
    )
    .await;
    let same = [accounts, secret, ("WEBSITE_APPID", CLUB)];
    gives_up(&same, &["WEBSITE_APPID", CLUB, "is an account too"]).await;
    let bad = [accounts, secret, ("WEBSITE_APPID", "wx 1")];
    gives_up(&bad, &["WEBSITE_APPID", "app id"]).await;
    for alone in [None, Some(accounts)] {
        let gateway = [
            ("WEBSITE_APPID", SITE),
            secret,
            ("TRUSTED_USER_HEADER", "x-user-id"),
        ];
        let pairs: Vec<_> = gateway.into_iter().chain(alone).collect();
        gives_up(&pairs, &["WEBSITE_APPID", "TRUSTED_USER_HEADER"]).await;
    }
}
