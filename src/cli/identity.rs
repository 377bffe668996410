//! `landbridge identity`: who this machine is, and how that survives its reinstallation.

use std::{
    fs,
    io::{BufRead, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use zeroize::Zeroizing;

use super::{
    Failure,
    args::{IdentityVerb, Passphrase},
    output, prompt,
};
use crate::{config::Config, daemon::identity};

/// The largest file or passphrase that is read.
const SIZE_LIMIT: u64 = 64 * 1024;

/// Does what the verb says.
pub(super) async fn identity(verb: IdentityVerb) -> Result<(), Failure> {
    match verb {
        IdentityVerb::Show(options) => {
            let shown = identity::show(&load(&options)?).map_err(not_so)?;
            output::print(&format!("{}\n{}\n", shown.cluster_id, shown.fingerprint))
        }
        IdentityVerb::Export(options) => {
            let config = load(&options.settings)?;
            let shown = identity::show(&config).map_err(not_so)?;
            let passphrase = passphrase(&options.passphrase, true).await?;
            let sealed = identity::export(&config, &passphrase).map_err(not_so)?;
            write(&options.file, &sealed)?;
            output::print(&format!(
                "{} sealed in {}: keep the passphrase elsewhere\n",
                shown.cluster_id,
                options.file.display()
            ))
        }
        IdentityVerb::Import(options) => {
            let config = load(&options.settings)?;
            let sealed = read(&options.file)?;
            let passphrase = passphrase(&options.passphrase, false).await?;
            let shown = identity::import(&config, &sealed, &passphrase, options.replace);
            let shown = shown.map_err(not_so)?;
            output::print(&format!("this machine is {}\n", shown.cluster_id))?;
            output::remark(
                "a daemon that keeps its objects in a cluster has its identity in the Secret liqo/landbridge-identity there, which is as it was",
            );
            Ok(())
        }
    }
}

fn load(settings: &super::args::Settings) -> Result<Config, Failure> {
    Ok(settings.sources().load()?.config)
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that map_err calls"
)]
fn not_so(error: crate::daemon::Error) -> Failure {
    Failure::NotSo(error.to_string())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .map_err(|error| Failure::NotSo(format!("cannot write {}: {error}", path.display())))
}

fn read(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    fs::File::open(path)
        .and_then(|file| file.take(SIZE_LIMIT).read_to_string(&mut text))
        .map_err(|error| Failure::Usage(format!("cannot read {}: {error}", path.display())))?;
    Ok(text)
}

/// Takes the passphrase from a file, from a person, or from standard input.
async fn passphrase(options: &Passphrase, is_new: bool) -> Result<Zeroizing<String>, Failure> {
    if let Some(path) = &options.passphrase_file {
        let text = read(path)?;
        return Ok(Zeroizing::new(
            text.trim_end_matches(['\r', '\n']).to_owned(),
        ));
    }
    let first = prompt::ask("passphrase", line).await?;
    if is_new && prompt::is_person() && *prompt::ask("again", line).await? != *first {
        return Err(Failure::Usage("the two passphrases differ".to_owned()));
    }
    Ok(first)
}

/// Reads a line.
fn line(input: impl BufRead) -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    let read = input.take(SIZE_LIMIT).read_line(&mut line);
    read.map_err(|error| Failure::Usage(format!("cannot read a passphrase: {error}")))?;
    Ok(Zeroizing::new(
        line.trim_end_matches(['\r', '\n']).to_owned(),
    ))
}
