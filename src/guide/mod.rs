//! Guides: how to use and operate the crate, with code that is compiled.

/// Defines a module whose documentation is a page beside this file.
///
/// On a forge a page links to other pages by file name. Here the same link labels lead to modules: of
/// several definitions of a label, Markdown takes the first one.
macro_rules! guide {
    ($(#[$attribute:meta])* $name:ident, $page:literal, $summary:literal) => {
        #[doc = $summary]
        #[doc = ""]
        #[doc = include_str!("links.txt")]
        #[doc = ""]
        #[doc = include_str!($page)]
        $(#[$attribute])*
        pub mod $name {}
    };
}

guide! {
    #[cfg(feature = "axum")]
    login, "login.md", "Signing users in with WeChat, from the account's settings to a greeting page."
}
guide! {
    #[cfg(feature = "axum")]
    recipes, "recipes.md", "Nine small applications, each for one need, with a program to start from."
}
guide! {
    #[cfg(all(feature = "axum", feature = "redis"))]
    accounts, "accounts.md",
    "Several accounts behind one layer, and a website app for users outside WeChat."
}
guide! {
    #[cfg(all(feature = "axum", feature = "redis", feature = "platform"))]
    platform, "platform.md",
    "A third-party platform (第三方平台), which serves the accounts of other owners."
}
guide! { account, "account.md", "The account's own token and ticket, JS-SDK signatures and the token center." }
guide! {
    #[cfg(feature = "redis")]
    redis, "redis.md", "Connections, topologies, layouts and settings of Redis."
}
guide! {
    failures, "failures.md",
    "Responses to requests when WeChat, Redis or a process fails, and all timeouts."
}
guide! { production, "production.md", "A checklist of what to do and to try before users come." }
guide! { operations, "operations.md", "Running a service: health, errcodes, proxies and shutdown." }
guide! { observability, "observability.md", "Metrics, spans and log events, with their names." }
guide! { program, "program.md", "The command line for operators." }
guide! {
    #[cfg(feature = "sealing")]
    sealing, "sealing.md", "Encrypted values in Redis and the rotation of their keys."
}
guide! { scaling, "scaling.md", "Growth from one process to many, and from a thousand users to 100 million." }
guide! {
    #[cfg(feature = "redis")]
    spring_boot, "spring_boot.md",
    "Sharing Redis with a Spring Boot service, and moving from WxJava."
}
guide! {
    #[cfg(feature = "simulator")]
    testing, "testing.md", "Tests of an application against a simulated WeChat."
}
guide! { demo, "demo.md", "The demo, its routes and its variables." }
