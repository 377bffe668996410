//! The tunnel's own private key: made once, kept in a file that only we may read.

use std::{fmt, io, path::Path};

use gotatun::x25519;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use super::driver::Error;
use crate::engine::overlay::PublicKey;

/// A Curve25519 private key; it never shows itself.
#[derive(Clone)]
pub struct PrivateKey(Zeroizing<[u8; 32]>);

impl PrivateKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, Error> {
        let mut bytes = Zeroizing::new([0; 32]);
        SystemRandom::new()
            .fill(bytes.as_mut())
            .map_err(|_| Error::kernel("read random bytes", io::Error::other("no randomness")))?;
        Ok(Self(bytes))
    }

    /// Returns the public half.
    pub fn public_key(&self) -> PublicKey {
        PublicKey::new(x25519::PublicKey::from(&self.secret()).to_bytes())
    }

    pub(crate) fn secret(&self) -> x25519::StaticSecret {
        x25519::StaticSecret::from(*self.0)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PrivateKey(***)")
    }
}

/// Reads the key of a file, or makes one and writes it there with mode 0600.
pub fn load_or_create(path: &Path) -> Result<PrivateKey, Error> {
    let file_error = |source| Error::File {
        path: path.display().to_string(),
        source,
    };
    match read(path) {
        Ok(key) => Ok(key),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = PrivateKey::generate()?;
            match write(path, &key) {
                Ok(()) => Ok(key),
                // Somebody was faster; what is in the file counts.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    read(path).map_err(file_error)
                }
                Err(error) => Err(file_error(error)),
            }
        }
        Err(error) => Err(file_error(error)),
    }
}

fn read(path: &Path) -> io::Result<PrivateKey> {
    use io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    let mut file = std::fs::File::open(path)?;
    if file.metadata()?.permissions().mode() & 0o077 != 0 {
        file.set_permissions(std::fs::Permissions::from_mode(0o600))?;
    }
    let mut bytes = Zeroizing::new([0; 32]);
    let mut rest = [0];
    file.read_exact(bytes.as_mut())?;
    if file.read(&mut rest)? != 0 {
        let message = "a tunnel key has 32 bytes; move the file away to get a new key";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(PrivateKey(bytes))
}

/// Writes beside the file and links it into place, so that nobody ever reads half a key.
fn write(path: &Path, key: &PrivateKey) -> io::Result<()> {
    use io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let draft = path.with_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file
        .write_all(key.0.as_ref())
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&draft, path));
    std::fs::remove_file(&draft)?;
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_to_ourselves() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tunnel.key");
        let key = load_or_create(&path).unwrap();
        assert_eq!(
            load_or_create(&path).unwrap().public_key(),
            key.public_key()
        );
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_key_that_others_could_read_is_closed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tunnel.key");
        load_or_create(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        load_or_create(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_file_that_is_no_key_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tunnel.key");
        for content in [vec![1; 31], vec![1; 33], Vec::new()] {
            std::fs::write(&path, &content).unwrap();
            assert!(load_or_create(&path).is_err());
            assert_eq!(std::fs::read(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_key_never_shows_itself() {
        let key = PrivateKey(Zeroizing::new([0x41; 32]));
        assert_eq!(format!("{key:?}"), "PrivateKey(***)");
    }
}
