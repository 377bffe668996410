//! The map of ARCHITECTURE.md is true: rooms import only what they may, and every file says what it is for.
#![expect(clippy::panic, reason = "a file that cannot be read fails its test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Each room and the rooms that it may import. Doors never import doors; nothing imports upwards.
const MAP: [(&str, &[&str]); 11] = [
    ("api", &[]),
    ("engine", &["api"]),
    ("discovery", &["api", "engine"]),
    ("peer", &["api", "engine"]),
    ("tunnel", &["api", "engine"]),
    ("kubeapi", &["api"]),
    (
        "controllers",
        &["api", "engine", "discovery", "peer", "tunnel"],
    ),
    ("config", &["api", "engine"]),
    ("telemetry", &["api"]),
    (
        "daemon",
        &[
            "api",
            "engine",
            "discovery",
            "peer",
            "tunnel",
            "kubeapi",
            "controllers",
            "config",
            "telemetry",
        ],
    ),
    ("cli", &["api", "config", "daemon", "telemetry"]),
];

#[test]
fn every_room_is_on_the_map_and_in_the_library() {
    let library = read(&source().join("lib.rs"));
    let declared: BTreeSet<&str> = library
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .collect();
    let mapped: BTreeSet<&str> = MAP.iter().map(|(room, _)| *room).collect();
    assert_eq!(declared, mapped, "lib.rs and the map differ");
    let found: BTreeSet<String> = files().iter().filter_map(|file| room(file)).collect();
    let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
    assert_eq!(found, mapped, "src and the map differ");
}

#[test]
fn rooms_import_only_what_they_may() {
    let allowed: BTreeMap<&str, &[&str]> = MAP.into_iter().collect();
    let mut wrong = Vec::new();
    for file in files() {
        let Some(room) = room(&file) else { continue };
        let text = read(&file);
        for (line, imported) in imports(&production(&text)) {
            let known = allowed.contains_key(imported.as_str());
            let may = imported == room || allowed[room.as_str()].contains(&imported.as_str());
            if known && !may {
                wrong.push(format!(
                    "{}:{line}: {room} imports {imported}",
                    shown(&file)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "against the map:\n{}", wrong.join("\n"));
}

#[test]
fn every_file_opens_with_what_it_is_for() {
    let silent: Vec<String> = files()
        .iter()
        .filter(|file| !read(file).starts_with("//! "))
        .map(|file| shown(file))
        .collect();
    assert!(silent.is_empty(), "no //! line: {}", silent.join(", "));
}

#[test]
fn rooms_are_a_file_and_a_folder_of_one_name() {
    let wrong: Vec<String> = files()
        .iter()
        .filter(|file| file.file_name().is_some_and(|name| name == "mod.rs"))
        .map(|file| shown(file))
        .collect();
    assert!(
        wrong.is_empty(),
        "use room.rs and room/: {}",
        wrong.join(", ")
    );
}

#[test]
fn the_engine_is_closed_to_the_world() {
    let engine = read(&source().join("engine.rs"));
    assert!(engine.contains("#![forbid(clippy::disallowed_methods, clippy::disallowed_types)]"));
    for file in files() {
        if room(&file).as_deref() != Some("engine") {
            continue;
        }
        let text = read(&file);
        for word in [
            "tokio::",
            "std::fs",
            "std::net::Tcp",
            "std::net::Udp",
            "kube::Api",
            "async fn",
        ] {
            assert!(
                !production(&text).contains(word),
                "{} has {word}",
                shown(&file)
            );
        }
    }
}

#[test]
fn the_written_map_names_every_room() {
    let text = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md"));
    for (room, _) in MAP {
        assert!(
            text.contains(&format!("`{room}`")),
            "ARCHITECTURE.md lacks {room}"
        );
    }
}

#[test]
fn every_task_is_in_both_tables() {
    let text = read(&source().join("daemon/run.rs"));
    let code = production(&text);
    let starts = code.split("tasks.start(").skip(1);
    let mut started: BTreeSet<&str> = starts
        .map(|call| call.split('"').nth(1).expect("a task has a name"))
        .collect();
    assert!(started.len() > 15, "{started:?}");
    // It ends after all others, and is none of theirs.
    started.insert("API on loopback");
    let map = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md"));
    for written in [text.replace("//! ", ""), map] {
        let (_, table) = written.split_once("\n| task |").expect("a table of tasks");
        let rows = table.lines().skip(2).take_while(|row| row.starts_with('|'));
        let first = rows.filter_map(|row| row.split('|').nth(1));
        let named: Vec<String> = first.map(without_brackets).collect();
        let named: BTreeSet<&str> = named
            .iter()
            .flat_map(|cell| cell.split(','))
            .map(str::trim)
            .collect();
        assert_eq!(named, started);
    }
}

/// Returns a text without what stands in brackets.
fn without_brackets(text: &str) -> String {
    let mut parts = text.split('(');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |all, part| {
        all + part.split_once(')').map_or("", |(_, rest)| rest)
    })
}

/// Lists the rooms that a text imports through `crate::`, with the line of each.
fn imports(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, _) in text.match_indices("crate::") {
        // `$crate::` and `other_crate::` are somebody else's.
        if text[..index]
            .ends_with(|before: char| before.is_alphanumeric() || before == '_' || before == '$')
        {
            continue;
        }
        let line = text[..index].lines().count().max(1);
        for name in heads(&text[index + "crate::".len()..]) {
            found.push((line, name));
        }
    }
    found
}

/// Returns the first segments of a path or of a braced tree of paths.
fn heads(path: &str) -> Vec<String> {
    let word = |text: &str| -> String {
        text.chars()
            .take_while(|letter| letter.is_alphanumeric() || *letter == '_')
            .collect()
    };
    let Some(tree) = path.strip_prefix('{') else {
        return vec![word(path)];
    };
    let mut names = Vec::new();
    let mut depth = 0_usize;
    let mut item = String::new();
    for letter in tree.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(word(std::mem::take(&mut item).trim())),
            _ => {}
        }
        if letter != ',' || depth > 0 {
            item.push(letter);
        }
    }
    names.push(word(item.trim()));
    names.retain(|name| !name.is_empty());
    names
}

/// Returns a file without its tests, comments and documentation.
fn production(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    text[..end]
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Returns the room of a file; the library and the program themselves are in none.
fn room(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(source()).expect("a source file");
    let first = inside.components().next()?.as_os_str().to_str()?;
    let room = first.strip_suffix(".rs").unwrap_or(first);
    (!matches!(room, "lib" | "main")).then(|| room.to_owned())
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn shown(file: &Path) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    file.strip_prefix(root)
        .unwrap_or(file)
        .display()
        .to_string()
}

fn files() -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}
