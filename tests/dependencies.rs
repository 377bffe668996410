//! What is built into the program: the rules of `deny.toml`, and no build script unseen.
#![expect(
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a graph that cannot be read fails its test"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use serde_json::Value;

/// The crates that run a script when they are built. Whoever adds one has looked at its script.
const BUILD_SCRIPTS: [&str; 39] = [
    "ahash",
    "crossbeam-epoch",
    "crossbeam-utils",
    "curve25519-dalek",
    "encoding_rs",
    "eyre",
    "generic-array",
    "getrandom",
    "httparse",
    "icu_normalizer_data",
    "icu_properties_data",
    "k8s-openapi",
    "libc",
    "libmimalloc-sys",
    "libsqlite3-sys",
    "memoffset",
    "nix",
    "num-traits",
    "object",
    "oid-registry",
    "parking_lot_core",
    "pest_stack_guard",
    "portable-atomic",
    "proc-macro2",
    "psm",
    "quote",
    "ref-cast",
    "ring",
    "rustix",
    "rustls",
    "rustversion",
    "serde",
    "serde_core",
    "serde_json",
    "stacker",
    "thiserror",
    "tun-rs",
    "zerocopy",
    "zmij",
];

#[test]
fn every_crate_has_a_licence_that_is_allowed() {
    let allowed = strings("licenses", "allow");
    let allowed: BTreeSet<&str> = allowed.iter().map(String::as_str).collect();
    for package in packages() {
        let name = text(&package, "name");
        let licence = text(&package, "license");
        assert!(
            Expression::of(&licence).is_satisfied(&allowed),
            "{name} is licensed as {licence:?}"
        );
    }
}

#[test]
fn licence_expressions_are_understood() {
    let allowed = BTreeSet::from(["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"]);
    for (expression, expected) in [
        ("MIT", true),
        ("GPL-3.0-only", false),
        ("GPL-2.0 OR MIT", true),
        ("MIT/Apache-2.0", true),
        ("MIT AND GPL-3.0-only", false),
        ("(GPL-2.0 OR Apache-2.0) AND MIT", true),
        ("(GPL-2.0 OR LGPL-2.1) AND MIT", false),
        ("GPL-2.0 AND MIT OR MIT", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("GPL-2.0 WITH Classpath-exception-2.0", false),
        ("", false),
    ] {
        let found = Expression::of(expression).is_satisfied(&allowed);
        assert_eq!(found, expected, "{expression:?}");
    }
}

#[test]
fn every_crate_comes_from_the_registry() {
    let registries = strings("sources", "allow-registry");
    for package in packages() {
        let name = text(&package, "name");
        let Some(source) = package["source"].as_str() else {
            assert_eq!(name, env!("CARGO_PKG_NAME"), "a crate from a folder");
            continue;
        };
        let allowed = registries
            .iter()
            .any(|registry| source == format!("registry+{registry}"));
        assert!(allowed, "{name} comes from {source}");
    }
}

#[test]
fn no_crate_is_one_that_is_banned() {
    let present: BTreeSet<String> = packages().iter().map(|it| text(it, "name")).collect();
    let banned: Vec<String> = section("bans")
        .lines()
        .filter_map(|line| {
            Some(
                line.split_once("crate = \"")?
                    .1
                    .split_once('"')?
                    .0
                    .to_owned(),
            )
        })
        .collect();
    assert!(banned.len() > 5, "{banned:?}");
    for name in banned {
        assert!(!present.contains(&name), "{name}");
    }
}

#[test]
fn no_version_that_we_ask_for_is_any_version() {
    assert!(section("bans").contains("wildcards = \"deny\""));
    let packages = packages();
    let own = packages
        .iter()
        .find(|package| text(package, "name") == env!("CARGO_PKG_NAME"))
        .expect("ourselves");
    let asked = own["dependencies"].as_array().expect("a list");
    assert!(asked.len() > 20, "{} dependencies", asked.len());
    for dependency in asked {
        let (name, version) = (text(dependency, "name"), text(dependency, "req"));
        assert!(!version.contains('*'), "{name} in the version {version}");
    }
}

#[test]
fn the_program_uses_what_it_asks_for() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let manifest = fs::read_to_string(path).expect("the manifest");
    let (_, rest) = manifest
        .split_once("\n[dependencies]\n")
        .expect("the section");
    let asked = rest.lines().take_while(|line| !line.starts_with('['));
    let asked: Vec<String> = asked
        .filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")))
        .collect();
    assert!(asked.len() > 20, "{asked:?}");
    let sources = sources();
    for name in asked {
        let path = format!("{name}::");
        let is_used = sources.iter().any(|(_, content)| {
            let mut found = content.match_indices(&path);
            // A module of the same name comes after `::`.
            found.any(|(index, _)| {
                !content[..index].ends_with(|before: char| {
                    before.is_alphanumeric() || matches!(before, '_' | ':')
                })
            })
        });
        assert!(is_used, "nothing uses {name}");
    }
}

#[test]
fn no_build_script_is_new() {
    let present: BTreeSet<String> = packages()
        .iter()
        .filter(|package| {
            let targets = package["targets"].as_array().into_iter().flatten();
            let mut kinds = targets
                .filter_map(|target| target["kind"].as_array())
                .flatten();
            kinds.any(|kind| kind == "custom-build")
        })
        .map(|package| text(package, "name"))
        .collect();
    let known = BUILD_SCRIPTS.map(str::to_owned).into();
    let new: Vec<_> = present.difference(&known).collect();
    assert!(
        new.is_empty(),
        "look at the build scripts of {new:?}, then name them here"
    );
}

#[test]
fn nothing_verifies_less_than_it_should() {
    for (path, content) in sources() {
        assert!(
            !content.contains(concat!("danger_accept", "_invalid")),
            "{path}"
        );
        let overrides = content.contains(".dangerous()");
        assert!(!overrides || path.ends_with("src/peer/tls.rs"), "{path}");
    }
}

/// A licence expression (SPDX specification, annex D), with the old slash for `OR`.
enum Expression {
    One(String),
    All(Vec<Self>),
    Any(Vec<Self>),
}

impl Expression {
    fn of(text: &str) -> Self {
        let spaced = text
            .replace('/', " OR ")
            .replace('(', " ( ")
            .replace(')', " ) ");
        let words: Vec<&str> = spaced.split_whitespace().collect();
        Self::any(&mut words.into_iter().peekable())
    }

    fn any<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut parts = vec![Self::all(words)];
        while words.next_if_eq(&"OR").is_some() {
            parts.push(Self::all(words));
        }
        Self::Any(parts)
    }

    fn all<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        let mut parts = vec![Self::one(words)];
        while words.next_if_eq(&"AND").is_some() {
            parts.push(Self::one(words));
        }
        Self::All(parts)
    }

    fn one<'a>(words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> Self {
        match words.next() {
            Some("(") => {
                let inner = Self::any(words);
                assert_eq!(words.next(), Some(")"));
                inner
            }
            Some(name) if words.next_if_eq(&"WITH").is_some() => {
                Self::One(format!("{name} WITH {}", words.next().unwrap_or_default()))
            }
            name => Self::One(name.unwrap_or_default().to_owned()),
        }
    }

    fn is_satisfied(&self, allowed: &BTreeSet<&str>) -> bool {
        match self {
            Self::One(name) => allowed.contains(name.as_str()),
            Self::All(parts) => parts.iter().all(|part| part.is_satisfied(allowed)),
            Self::Any(parts) => parts.iter().any(|part| part.is_satisfied(allowed)),
        }
    }
}

/// Lists the crates that are built on Linux, those for tests included.
fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--offline"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let graph: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    let nodes = graph["resolve"]["nodes"].as_array().into_iter().flatten();
    let used: BTreeSet<&str> = nodes.filter_map(|node| node["id"].as_str()).collect();
    let all = graph["packages"].as_array().into_iter().flatten();
    let found: BTreeMap<&str, &Value> = all
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .filter(|(id, _)| used.contains(id))
        .collect();
    assert!(found.len() > 100, "{} crates", found.len());
    found.into_values().cloned().collect()
}

fn text(package: &Value, field: &str) -> String {
    package[field].as_str().unwrap_or_default().to_owned()
}

/// Returns a section of `deny.toml`.
fn section(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deny.toml");
    let rules = fs::read_to_string(path).expect("the rules");
    let (_, rest) = rules
        .split_once(&format!("\n[{name}]\n"))
        .expect("the section");
    rest.split("\n[").next().unwrap_or_default().to_owned()
}

/// Returns the strings of a list in `deny.toml`.
fn strings(of: &str, key: &str) -> Vec<String> {
    let section = section(of);
    let (_, rest) = section.split_once(&format!("{key} = [")).expect("the list");
    let list = rest.split(']').next().unwrap_or_default();
    list.split('"')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// Reads every source file of the program.
fn sources() -> Vec<(String, String)> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "rs") {
                let content = fs::read_to_string(&path).expect("a file");
                found.push((path.display().to_string(), content));
            }
        }
    }
    found
}
