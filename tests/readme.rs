//! Tests that the pages agree with the code: shown programs compile, and named variables, features,
//! items and files exist.

use std::path::Path;

use tower_wechat::{CookieKeys, Error, Login, RedisStore, UserTokens, WechatClient};

fn file(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The README in English and in Chinese.
const PAGES: [&str; 2] = ["README.md", "README.zh-CN.md"];

/// The README's code for a real account, which is compiled here and never run.
async fn connect(app_id: &str, app_secret: &str, key: &str) -> Result<(UserTokens, Login), Error> {
    // Shown code begins here.
    let wechat = WechatClient::new(app_id, app_secret)?;
    let users = UserTokens::new(wechat, RedisStore::connect("redis://127.0.0.1/").await?);
    let login = Login::new("https://h5.example.com", CookieKeys::from_base64(key)?)?;
    // Shown code ends here.
    Ok((users, login))
}

/// The first code block of each README is `examples/minimal.rs`, which other tests run. The second
/// one is the body of [`connect`].
#[test]
fn shown_code_is_compiled() {
    let _ = connect;
    let minimal = file("examples/minimal.rs");
    let (_, program) = minimal.split_once("\n\n").expect("a doc comment first");
    let this = file("tests/readme.rs");
    let piece = this.split("// Shown code begins here.\n").nth(1);
    let piece = piece.and_then(|rest| rest.split("// Shown code ends here.").next());
    let piece = piece.expect("the markers").trim_end().lines();
    let piece: Vec<_> = piece.map(|line| line.trim_start()).collect();
    for page in PAGES {
        let text = file(page);
        let shown: Vec<&str> = blocks(&text, "rust").collect();
        let expected = [program.trim_end().to_owned(), piece.join("\n")];
        assert_eq!(shown, expected, "{page}");
    }
}

/// The recipes, and the most lines that each may have.
const RECIPES: [(&str, usize); 9] = [
    ("greeting", 16),
    ("nested", 20),
    ("scope", 16),
    ("errors", 24),
    ("own_users", 30),
    ("own_tests", 20),
    ("two_accounts", 24),
    ("job", 24),
    ("other_origin", 30),
];

/// Returns a recipe's program without the doc comment at its head.
fn recipe(name: &str) -> String {
    let source = file(&format!("examples/recipes/{name}.rs"));
    let (head, program) = source.split_once("\n\n").expect("a doc comment first");
    assert!(head.lines().all(|line| line.starts_with("//!")), "{name}");
    program.trim_end().to_owned()
}

/// The guide quotes each recipe as a whole, and nothing else. A recipe without its own tests is
/// compiled as a doc test there.
#[test]
fn the_guide_quotes_the_recipes() {
    let guide = file("src/guide/recipes.md");
    let mut shown: Vec<&str> = ["rust,no_run", "rust,ignore"]
        .into_iter()
        .flat_map(|language| blocks(&guide, language))
        .collect();
    for (name, budget) in RECIPES {
        let program = recipe(name);
        let place = shown.iter().position(|block| *block == program);
        let place = place.unwrap_or_else(|| panic!("the guide does not quote {name}:\n{program}"));
        shown.swap_remove(place);
        assert!(
            guide.contains(&format!("(`{name}`)")),
            "the guide does not name {name}"
        );
        let lines = program.lines().map(str::trim_start);
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with("//"));
        let lines = lines.count();
        assert!(lines <= budget, "{name} has {lines} lines");
    }
    assert!(shown.is_empty(), "no recipe has this program: {shown:?}");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/recipes");
    for entry in std::fs::read_dir(folder).expect("a folder of recipes") {
        let path = entry.expect("a file").path();
        let name = path.file_stem().unwrap_or_default();
        let is_known = name == "main" || RECIPES.iter().any(|(known, _)| name == *known);
        assert!(is_known, "{} is no recipe", path.display());
    }
}

#[test]
fn readmes_have_at_most_150_lines() {
    for page in PAGES {
        let lines = file(page).lines().count();
        assert!(lines <= 150, "{page} has {lines} lines");
    }
}

/// Returns the code blocks of a page in one programming language.
fn blocks<'a>(text: &'a str, language: &str) -> impl Iterator<Item = &'a str> {
    let start = format!("```{language}\n");
    text.match_indices(&start)
        .map(|(at, start)| &text[at + start.len()..])
        .filter_map(|rest| rest.split("\n```").next())
        .collect::<Vec<_>>()
        .into_iter()
}

/// Compares two pages in English and Chinese: the levels of their headings, and the numbers of
/// table rows, list items, code blocks and links.
#[test]
fn both_languages_have_the_same_parts() {
    for pages in [PAGES, ["docs/faults.md", "docs/faults.zh-CN.md"]] {
        compare_parts(pages.map(file));
    }
}

fn compare_parts([english, chinese]: [String; 2]) {
    let lines = |text: &str, starts: &str| {
        text.lines()
            .filter(|line| line.starts_with(starts))
            .map(|line| line.split(' ').next().unwrap_or_default().len())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines(&english, "#"), lines(&chinese, "#"), "headings");
    let count = |text: &str, what: &str| text.matches(what).count();
    for what in ["\n| ", "\n- ", "\n```", "](", "<!-- "] {
        assert_eq!(count(&english, what), count(&chinese, what), "{what:?}");
    }
}

#[test]
fn both_languages_have_the_same_commands() {
    let [english, chinese] = PAGES.map(file);
    let commands = |text: &str| -> Vec<String> {
        let lines = blocks(text, "sh").flat_map(str::lines);
        lines
            .map(|line| {
                line.split("  #")
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            })
            .collect()
    };
    assert_eq!(commands(&english), commands(&chinese));
}

#[test]
fn the_guide_lists_the_demos_variables() {
    const GUIDE: &str = "src/guide/demo.md";
    let settings = [
        "examples/demo/accounts.rs",
        "examples/demo/platform.rs",
        "examples/demo/settings.rs",
        "examples/demo/redis.rs",
        "examples/demo/wechat.rs",
    ]
    .map(file)
    .concat();
    let pairs = settings.split("read_pair(\"").skip(1);
    let pairs = pairs.flat_map(|rest| rest.split('"').step_by(2).take(2));
    let read: Vec<&str> = [
        "read_variable(\"",
        "read_key(\"",
        "read_choice(\"",
        "read_seconds(\"",
        "read_named_file(\"",
    ]
    .iter()
    .flat_map(|call| settings.split(call).skip(1))
    .filter_map(|rest| rest.split('"').next())
    .chain(pairs)
    .collect();
    assert!(read.len() >= 10, "{read:?}");
    let guide = file(GUIDE);
    let table = guide
        .lines()
        .skip_while(|line| !line.starts_with("| `LISTEN`"))
        .take_while(|line| line.starts_with("| "));
    let mut shown: Vec<&str> = table
        .filter_map(|line| line.strip_prefix("| ")?.split(" |").next())
        .flat_map(|cell| cell.split('`').skip(1).step_by(2))
        .collect();
    for name in &read {
        assert!(shown.contains(name), "{GUIDE} lacks {name}");
    }
    shown.retain(|name| !read.contains(name));
    assert_eq!(shown, Vec::<&str>::new(), "the demo does not read these");
}

#[test]
fn feature_tables_list_the_crates_features() {
    let manifest = file("Cargo.toml");
    let (_, rest) = manifest.split_once("[features]\n").unwrap();
    let (lines, _) = rest.split_once("\n\n").unwrap();
    let names = lines.lines().filter_map(|line| line.split(" = ").next());
    let mut features: Vec<&str> = names.filter(|name| *name != "default").collect();
    features.sort_unstable();
    assert!(features.len() >= 7, "{features:?}");
    for (page, heading) in [
        ("README.md", "## Features\n"),
        ("README.zh-CN.md", "## Features\n"),
        ("src/lib.rs", "//! # Features\n"),
    ] {
        let text = file(page);
        let (_, part) = text.split_once(heading).unwrap();
        let rows = part.lines().map(|line| line.trim_start_matches("//! "));
        let rows = rows
            .skip_while(|line| !line.starts_with("| `"))
            .take_while(|line| line.starts_with("| `"));
        let mut shown: Vec<&str> = rows.filter_map(|row| row.split('`').nth(1)).collect();
        shown.sort_unstable();
        assert_eq!(shown, features, "{page}");
    }
}

/// Returns the paths of all pages: Markdown at the top, in `docs` and `benches`, and the guides.
fn pages() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = Vec::new();
    for folder in ["", "docs/", "benches/", "src/guide/"] {
        for entry in std::fs::read_dir(root.join(folder)).expect("a folder of pages") {
            let name = entry.expect("a file").file_name();
            let name = name.to_string_lossy().into_owned();
            if name.ends_with(".md") {
                pages.push(format!("{folder}{name}"));
            }
        }
    }
    assert!(pages.len() >= 20, "{pages:?}");
    pages
}

/// Appends the text of all Rust files below a folder.
fn append_sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            append_sources(&path, text);
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            text.push_str(&std::fs::read_to_string(&path).expect("a source"));
        }
    }
}

/// Items that pages name as `Type::member` exist. The names are not links, because links of rustdoc
/// do not work on GitHub.
#[test]
fn named_methods_and_variants_exist() {
    let mut source = String::new();
    append_sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut source,
    );
    let mut checked = 0;
    for page in pages() {
        let text = file(&page);
        let spans = text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        for span in spans {
            let Some((owner, member)) = span.split_once("::") else {
                continue;
            };
            let word = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            if !owner.starts_with(char::is_uppercase) || !word(owner) || !word(member) {
                continue;
            }
            let types = ["struct", "enum", "trait"].map(|kind| format!("{kind} {owner}"));
            assert!(
                types.iter().any(|start| source.contains(start.as_str())),
                "{page}: {span}"
            );
            let starts = match member.starts_with(char::is_uppercase) {
                true => [format!("    {member},\n"), format!("    {member}(")],
                false => [format!("fn {member}("), format!("fn {member}<")],
            };
            assert!(
                starts.iter().any(|start| source.contains(start.as_str())),
                "{page}: {span}"
            );
            checked += 1;
        }
    }
    assert!(checked > 20, "{checked} names were found");
}

/// Each link to a file leads to an existing one, seen from the folder of its page.
#[test]
fn links_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for page in pages() {
        let text = file(&page);
        let folder = root.join(&page);
        let folder = folder.parent().expect("a folder");
        let inline = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        let defined = text.lines().filter_map(|line| {
            let (label, target) = line.strip_prefix('[')?.split_once("]: ")?;
            (!label.contains(']')).then_some(target)
        });
        for link in inline.chain(defined) {
            if link.contains("://") || link.starts_with('#') {
                continue;
            }
            let path = link.split('#').next().unwrap_or_default();
            assert!(folder.join(path).exists(), "{page}: {link}");
        }
    }
}
