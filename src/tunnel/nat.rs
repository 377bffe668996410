//! Our table of packet rules, through the `nft` program: one text, applied at once.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use tokio::{io::AsyncWriteExt as _, process::Command, time::timeout};

use super::driver::Error;
use crate::engine::overlay::{FilterState, Ruleset, filter::TABLE};

/// How long `nft` may take; it needs milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// Where distributions put `nft`, beside what PATH says.
const DIRECTORIES: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/local/sbin", "/usr/bin"];

/// Returns where `nft` is.
pub(crate) fn program() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(DIRECTORIES.iter().map(PathBuf::from))
        .map(|directory| directory.join("nft"))
        .find(|file| file.is_file())
}

/// Puts the rules in place of those that are there.
pub(crate) async fn replace(ruleset: &Ruleset) -> Result<(), Error> {
    apply("the rules", &ruleset.text).await
}

/// Removes our table, whether it is there or not.
pub(crate) async fn remove() -> Result<(), Error> {
    let text = format!("table inet {TABLE} {{}}\ndelete table inet {TABLE}\n");
    apply("to remove the rules", &text).await
}

/// Returns which rules are in place.
pub(crate) async fn observe() -> Result<Option<FilterState>, Error> {
    let what = "to list the rules";
    let output = run(what, &["-n", "list", "table", "inet", TABLE], "").await?;
    if output.status.success() {
        return Ok(Some(read(&String::from_utf8_lossy(&output.stdout))));
    }
    let message = String::from_utf8_lossy(&output.stderr);
    if message.contains("No such file or directory") {
        return Ok(None);
    }
    Err(refused(what, &message))
}

/// Recognises our rules in nft's own spelling, where each stands on a line.
fn read(listing: &str) -> FilterState {
    let lines = || listing.lines().map(str::trim);
    let chains = lines().filter_map(|line| line.strip_prefix("chain "));
    let mut names = chains.filter_map(|rest| rest.split(' ').next());
    let is_rule = |line: &&str| line.starts_with("iifname ") || line.starts_with("oifname ");
    FilterState {
        mark: names
            .find(|name| FilterState::is_mark(name))
            .unwrap_or_default()
            .to_owned(),
        rules: lines().filter(is_rule).count(),
    }
}

async fn apply(what: &'static str, text: &str) -> Result<(), Error> {
    let output = run(what, &["-f", "-"], text).await?;
    if output.status.success() {
        Ok(())
    } else {
        Err(refused(what, &String::from_utf8_lossy(&output.stderr)))
    }
}

async fn run(what: &'static str, arguments: &[&str], input: &str) -> Result<Output, Error> {
    let program = program().ok_or_else(missing)?;
    let failed = |source| Error::kernel(format!("run {}", program.display()), source);
    let run = async {
        let mut child = command(&program, arguments).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    timeout(LIMIT, run)
        .await
        .map_err(|_| Error::Timeout { what, limit: LIMIT })?
        .map_err(failed)
}

fn command(program: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Says that there is no `nft`.
pub(crate) fn missing() -> Error {
    Error::Unavailable {
        missing: "the program nft is not installed".to_owned(),
        mend: "install the package nftables".to_owned(),
    }
}

fn refused(what: &'static str, message: &str) -> Error {
    let line = message.lines().next().unwrap_or("it gave no reason");
    Error::Rules {
        what,
        message: line.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_rules_are_known_in_the_spelling_of_nft() {
        let listing = "table inet landbridge {\n\tchain guard {\n\t\ttype filter hook prerouting priority -300; policy accept;\n\t\tiifname \"landbridge0\" counter packets 0 bytes 0 drop\n\t}\n\n\tchain mark_70d0 {\n\t}\n\n\tchain outgoing {\n\t\ttype nat hook postrouting priority 100; policy accept;\n\t\toifname \"landbridge0\" ip saddr != 10.244.0.0/16 counter packets 3 bytes 252 snat ip to 10.72.0.1\n\t}\n}\n";
        let expected = FilterState {
            mark: "mark_70d0".to_owned(),
            rules: 2,
        };
        assert_eq!(read(listing), expected);
        assert_eq!(read("").rules, 0);
    }
}
