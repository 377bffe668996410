//! A secret file of this user alone: read without following links, made with mode 0600.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use nix::fcntl::OFlag;
use zeroize::Zeroizing;

/// The largest file that is read as a key.
const SIZE_LIMIT: u64 = 64 * 1024;
/// Who owns what belongs to nobody of our user namespace (Linux's default overflowuid).
const UNMAPPED_USER: u32 = 65534;

/// Indicates that a secret file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Indicates that the operating system refused.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Indicates a file or directory that others could read or change.
    #[error("{path} is open to others (mode {mode:03o}): chmod {wanted} {path}")]
    Permissions {
        /// Which file or directory.
        path: PathBuf,
        /// The mode that it has.
        mode: u32,
        /// The mode that it should have.
        wanted: &'static str,
    },
    /// Indicates a file or directory of somebody else.
    #[error("{path} belongs to user {owner}: chown it to the user that runs landbridge")]
    Owner {
        /// Which file or directory.
        path: PathBuf,
        /// The user id that owns it.
        owner: u32,
    },
    /// Indicates something that is not a file, or a directory that is not one.
    #[error("{path} is not a plain {wanted}")]
    Kind {
        /// Which path.
        path: PathBuf,
        /// What it should be.
        wanted: &'static str,
    },
}

/// Reads the file; `None` when there is none. Refuses links, foreign owners and files that group
/// or others may read.
pub fn read(path: &Path) -> Result<Option<Zeroizing<String>>, Error> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path);
    let mut file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io_error("read", path)(error)),
    };
    let metadata = file.metadata().map_err(io_error("read", path))?;
    if !metadata.is_file() {
        return Err(kind(path, "file"));
    }
    judge(path, &metadata, 0o077, "600")?;
    judge_directory(directory_of(path))?;
    let mut text = Zeroizing::new(String::with_capacity(
        usize::try_from(metadata.len().min(SIZE_LIMIT)).unwrap_or_default() + 1,
    ));
    io::Read::by_ref(&mut file)
        .take(SIZE_LIMIT)
        .read_to_string(&mut text)
        .map_err(io_error("read", path))?;
    Ok(Some(text))
}

/// Writes a new file of mode 0600, whole or not at all. A missing directory is made with mode 0700;
/// one that is there may be read by others, but not changed.
pub fn create(path: &Path, content: &str) -> Result<(), Error> {
    let directory = directory_of(path);
    prepare_directory(directory)?;
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_error("remove", &unfinished)(error));
        }
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .open(&unfinished)
        .map_err(io_error("write", &unfinished))?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(io_error("write", &unfinished))?;
    fs::rename(&unfinished, path).map_err(io_error("write", path))?;
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(io_error("write", directory))
}

/// Refuses a directory for secrets that somebody else could change: the directory itself, and those
/// above it, where whoever may rename an entry can put another in its place.
pub fn check_directory(directory: &Path) -> Result<(), Error> {
    judge_directory(directory)?;
    let real = fs::canonicalize(directory).map_err(io_error("read", directory))?;
    for above in real.ancestors().skip(1) {
        let metadata = fs::symlink_metadata(above).map_err(io_error("read", above))?;
        judge_above(above, &metadata)?;
    }
    Ok(())
}

/// A directory above belongs to root or to us. It may be changed by others only where nobody can
/// rename what is not theirs, and by our own group, which on many systems is ours alone.
fn judge_above(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    let user = nix::unistd::geteuid().as_raw();
    if ![0, user, UNMAPPED_USER].contains(&metadata.uid()) {
        return Err(Error::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
        });
    }
    let group = nix::unistd::getegid().as_raw();
    let mode = metadata.mode() & 0o1777;
    let others = mode & 0o002 != 0;
    let group = mode & 0o020 != 0 && ![0, group, UNMAPPED_USER].contains(&metadata.gid());
    if mode & 0o1000 == 0 && (others || group) {
        return Err(Error::Permissions {
            path: path.to_owned(),
            mode: mode & 0o777,
            wanted: "go-w",
        });
    }
    Ok(())
}

fn prepare_directory(directory: &Path) -> Result<(), Error> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(io_error("make", directory))?;
    judge_directory(directory)
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn judge_directory(directory: &Path) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(directory).map_err(io_error("read", directory))?;
    if !metadata.is_dir() {
        return Err(kind(directory, "directory"));
    }
    judge(directory, &metadata, 0o022, "700")
}

fn judge(
    path: &Path,
    metadata: &fs::Metadata,
    refused: u32,
    wanted: &'static str,
) -> Result<(), Error> {
    if metadata.uid() != nix::unistd::geteuid().as_raw() {
        return Err(Error::Owner {
            path: path.to_owned(),
            owner: metadata.uid(),
        });
    }
    let mode = metadata.mode() & 0o777;
    if mode & refused != 0 {
        return Err(Error::Permissions {
            path: path.to_owned(),
            mode,
            wanted,
        });
    }
    Ok(())
}

fn kind(path: &Path, wanted: &'static str) -> Error {
    Error::Kind {
        path: path.to_owned(),
        wanted,
    }
}

fn io_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn a_secret_is_written_for_its_owner_alone_and_read_back() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state/identity.pem");
        assert!(read(&path).unwrap().is_none());
        create(&path, "secret").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().as_str(), "secret");
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_mend() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("identity.pem");
        fs::write(&path, "secret").unwrap();
        for mode in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read(&path).unwrap_err().to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn a_link_is_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let target = root.path().join("target");
        create(&target, "secret").unwrap();
        let link = root.path().join("identity.pem");
        symlink(&target, &link).unwrap();
        assert!(matches!(read(&link), Err(Error::Io { .. })));
    }

    #[test]
    fn a_directory_that_others_can_change_gets_no_secret() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("state");
        fs::create_dir(&directory).unwrap();
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o775)).unwrap();
        let error = create(&directory.join("key"), "secret").unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
        assert!(!directory.join("key").exists());
    }

    #[test]
    fn a_directory_below_one_that_others_can_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let above = root.path().join("above");
        let directory = above.join("state");
        prepare_directory(&directory).unwrap();
        let open = |mode| fs::set_permissions(&above, fs::Permissions::from_mode(mode)).unwrap();
        for (mode, allowed) in [
            (0o755, true),
            (0o700, true),
            (0o775, true),
            (0o1777, true),
            (0o777, false),
            (0o757, false),
        ] {
            open(mode);
            let checked = check_directory(&directory);
            assert_eq!(checked.is_ok(), allowed, "{mode:o}: {checked:?}");
        }
        open(0o777);
        let error = check_directory(&directory).unwrap_err().to_string();
        assert!(error.contains("chmod go-w"), "{error}");
    }

    #[test]
    fn a_leftover_of_a_crash_does_not_stop_the_next_try() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("state/key");
        fs::create_dir(root.path().join("state")).unwrap();
        fs::set_permissions(root.path().join("state"), fs::Permissions::from_mode(0o700)).unwrap();
        fs::write(root.path().join("state/key.new"), "half").unwrap();
        create(&path, "whole").unwrap();
        assert_eq!(read(&path).unwrap().unwrap().as_str(), "whole");
    }
}
