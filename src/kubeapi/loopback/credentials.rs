//! The keys and certificates of the loopback listener, and the kubeconfig that carries them.

use crate::kubeapi::Error;
use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SerialNumber, date_time_ymd,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    fmt,
    fs::{self, DirBuilder, OpenOptions},
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};
use zeroize::Zeroizing;

/// How many years a certificate lasts; it is renewed at the start that finds less than one left.
const YEARS: i32 = 10;

/// A daemon on a machine whose clock lost its battery still gets usable certificates.
const EARLIEST_YEAR: i32 = 2020;

/// How many certificates and keys the file holds.
const PARTS: usize = 6;

/// The same before the authority's key was kept; such a file is made anew.
const OLD_PARTS: usize = 5;

const YEAR_SECONDS: i64 = 365 * 86_400;

/// The certificates of one embedded API. They are kept in one file, so that they always fit together.
pub struct Credentials {
    directory: PathBuf,
    authority: String,
    authority_key: Zeroizing<String>,
    server: String,
    server_key: Zeroizing<String>,
    client: String,
    client_key: Zeroizing<String>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Credentials {
    /// Where they are kept in a data directory: a secret, the key of the authority in it.
    pub fn path(data_dir: &Path) -> PathBuf {
        data_dir.join("api").join("credentials.pem")
    }

    /// Reads the credentials below the data directory; `None` when there are none of this version.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, Error> {
        let path = Self::path(data_dir);
        match fs::read_to_string(&path).map(Zeroizing::new) {
            Ok(text) if text.matches("-----BEGIN ").count() == OLD_PARTS => Ok(None),
            Ok(text) => Self::parse(data_dir, &text).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::file("read", &path, error)),
        }
    }

    /// Reads the credentials below the data directory, or makes them when there are none that last.
    pub fn load_or_create(data_dir: &Path, now: Timestamp) -> Result<Self, Error> {
        let path = Self::path(data_dir);
        if let Some(known) = Self::load(data_dir)?
            && known.expiry()? > now.as_second() + YEAR_SECONDS
        {
            return Ok(known);
        }
        let made = Self::make(data_dir, now).map_err(|error| refuse(&path, &error.to_string()))?;
        let directory = data_dir.join("api");
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|error| Error::file("create", &directory, error))?;
        write_private(&path, made.text().as_bytes())?;
        Ok(made)
    }

    /// The kubeconfig of an administrator, for a server at this address.
    pub fn kubeconfig(&self, server_url: &str) -> String {
        self.kubeconfig_with(
            "landbridge-admin",
            server_url,
            &self.client,
            &self.client_key,
        )
    }

    /// Issues a certificate to somebody, for a year, and returns the kubeconfig that carries it.
    /// What it may do is what RBAC objects allow to this user and these groups.
    pub fn kubeconfig_for(
        &self,
        user: &str,
        groups: &[&str],
        server_url: &str,
        now: Timestamp,
    ) -> Result<String, Error> {
        let path = Self::path(&self.directory);
        // The certificate library takes one value for each name of a place.
        let places = [
            DnType::OrganizationName,
            DnType::CustomDnType(vec![2, 5, 4, 10]),
        ];
        if groups.len() > places.len() {
            return Err(Error::Groups(places.len()));
        }
        let issue = || -> Result<(String, Zeroizing<String>), rcgen::Error> {
            let authority_key = KeyPair::from_pem(&self.authority_key)?;
            let issuer = Issuer::from_ca_cert_pem(&self.authority, authority_key)?;
            let mut client = params(user, EARLIEST_YEAR)?;
            for (group, place) in groups.iter().zip(places) {
                client.distinguished_name.push(place, *group);
            }
            client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            let date = now.to_zoned(jiff::tz::TimeZone::UTC).date();
            let month = u8::try_from(date.month()).unwrap_or(12);
            // The 28th is in every month.
            let day = u8::try_from(date.day()).unwrap_or(28).min(28);
            client.not_after = date_time_ymd(i32::from(date.year()) + 1, month, day);
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let certificate = client.signed_by(&key, &issuer)?.pem();
            Ok((certificate, Zeroizing::new(key.serialize_pem())))
        };
        let (certificate, key) = issue().map_err(|error| refuse(&path, &error.to_string()))?;
        Ok(self.kubeconfig_with(user, server_url, &certificate, &key))
    }

    fn kubeconfig_with(
        &self,
        user: &str,
        server_url: &str,
        certificate: &str,
        key: &str,
    ) -> String {
        // The server's certificate does not name each address of loopback, but localhost.
        // A name in JSON is one in YAML, whatever is in it.
        let user = serde_json::Value::from(user);
        format!(
            "apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: landbridge\n  cluster:\n    server: {server_url}\n    tls-server-name: localhost\n    certificate-authority-data: {}\n\
             contexts:\n\
             - name: landbridge\n  context:\n    cluster: landbridge\n    user: {user}\n\
             current-context: landbridge\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\n",
            STANDARD.encode(&self.authority),
            STANDARD.encode(certificate),
            STANDARD.encode(key),
        )
    }

    /// Writes the kubeconfig into the data directory, at once or not at all, and returns its path.
    pub fn write_kubeconfig(&self, server_url: &str) -> Result<PathBuf, Error> {
        let path = self.directory.join("kubeconfig");
        write_private(&path, self.kubeconfig(server_url).as_bytes())?;
        Ok(path)
    }

    /// The configuration of a listener that knows its clients by this authority.
    pub(super) fn server_config(&self) -> Result<ServerConfig, Error> {
        let path = Self::path(&self.directory);
        let refused = |error: &dyn fmt::Display| refuse(&path, &error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(&self.authority).map_err(|error| refused(&error))?)
            .map_err(|error| refused(&error))?;
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| refused(&error))?;
        let chain = vec![certificate(&self.server).map_err(|error| refused(&error))?];
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes())
            .map_err(|error| refused(&error))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| refused(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain, key)
            .map_err(|error| refused(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }

    fn parse(data_dir: &Path, text: &str) -> Result<Self, Error> {
        let sections: Vec<String> = text
            .split("-----BEGIN ")
            .skip(1)
            .map(|section| format!("-----BEGIN {section}"))
            .collect();
        let [
            authority,
            authority_key,
            server,
            server_key,
            client,
            client_key,
        ] = sections.as_slice()
        else {
            let why = format!("it has {} parts instead of {PARTS}", sections.len());
            return Err(refuse(&Self::path(data_dir), &why));
        };
        let credentials = Self {
            directory: data_dir.to_path_buf(),
            authority: authority.clone(),
            authority_key: Zeroizing::new(authority_key.clone()),
            server: server.clone(),
            server_key: Zeroizing::new(server_key.clone()),
            client: client.clone(),
            client_key: Zeroizing::new(client_key.clone()),
        };
        credentials.server_config()?;
        Ok(credentials)
    }

    fn make(data_dir: &Path, now: Timestamp) -> Result<Self, rcgen::Error> {
        let year = i32::from(now.to_zoned(jiff::tz::TimeZone::UTC).year()).max(EARLIEST_YEAR);
        let key = || KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let mut root = params("landbridge-api-ca", year)?;
        root.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        root.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let authority_key = key()?;
        let authority = root.self_signed(&authority_key)?.pem();
        let issuer = Issuer::from_params(&root, &authority_key);
        let mut server = params("landbridge-api", year)?;
        server.subject_alt_names = CertificateParams::new(vec![
            "localhost".to_owned(),
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
        ])?
        .subject_alt_names;
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = key()?;
        let mut client = params("landbridge:admin", year)?;
        client
            .distinguished_name
            .push(DnType::OrganizationName, "system:masters");
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let client_key = key()?;
        Ok(Self {
            directory: data_dir.to_path_buf(),
            authority,
            authority_key: Zeroizing::new(authority_key.serialize_pem()),
            server: server.signed_by(&server_key, &issuer)?.pem(),
            server_key: Zeroizing::new(server_key.serialize_pem()),
            client: client.signed_by(&client_key, &issuer)?.pem(),
            client_key: Zeroizing::new(client_key.serialize_pem()),
        })
    }

    fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(
            [
                self.authority.as_str(),
                &self.authority_key,
                &self.server,
                &self.server_key,
                &self.client,
                &self.client_key,
            ]
            .concat(),
        )
    }

    /// When the certificates expire, in Unix seconds.
    fn expiry(&self) -> Result<i64, Error> {
        let path = Self::path(&self.directory);
        let der = certificate(&self.server).map_err(|error| refuse(&path, &error.to_string()))?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&der)
            .map_err(|error| refuse(&path, &error.to_string()))?;
        Ok(parsed.validity().not_after.timestamp())
    }
}

fn params(name: &str, year: i32) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    params.distinguished_name = distinguished;
    params.not_before = date_time_ymd(EARLIEST_YEAR, 1, 1);
    params.not_after = date_time_ymd(year + YEARS, 12, 31);
    let mut serial = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut serial)
        .map_err(|_| rcgen::Error::RingUnspecified)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

fn certificate(pem: &str) -> Result<CertificateDer<'static>, rustls::pki_types::pem::Error> {
    CertificateDer::from_pem_slice(pem.as_bytes())
}

fn refuse(path: &Path, reason: &str) -> Error {
    Error::Certificate {
        path: path.to_path_buf(),
        reason: reason.to_owned(),
    }
}

/// Replaces a file at once, readable by its owner alone.
fn write_private(path: &Path, content: &[u8]) -> Result<(), Error> {
    let fresh = path.with_extension("new");
    let write = || {
        if fresh.exists() {
            fs::remove_file(&fresh)?;
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| Error::file("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn credentials_are_made_once_and_renewed_in_time() {
        let directory = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let made = Credentials::load_or_create(directory.path(), now).unwrap();
        let again = Credentials::load_or_create(directory.path(), now).unwrap();
        assert_eq!(*made.text(), *again.text());
        let late: Timestamp = "2036-06-01T00:00:00Z".parse().unwrap();
        let renewed = Credentials::load_or_create(directory.path(), late).unwrap();
        assert_ne!(made.authority, renewed.authority);
    }

    #[test]
    fn what_holds_a_key_is_for_its_owner_alone() {
        let directory = tempfile::tempdir().unwrap();
        let now = Timestamp::UNIX_EPOCH;
        let credentials = Credentials::load_or_create(directory.path(), now).unwrap();
        let kubeconfig = credentials
            .write_kubeconfig("https://127.0.0.1:5872")
            .unwrap();
        for path in [kubeconfig, Credentials::path(directory.path())] {
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_damaged_file_is_refused_with_its_path() {
        let directory = tempfile::tempdir().unwrap();
        Credentials::load_or_create(directory.path(), Timestamp::UNIX_EPOCH).unwrap();
        fs::write(Credentials::path(directory.path()), "nothing").unwrap();
        let refusal = Credentials::load_or_create(directory.path(), Timestamp::UNIX_EPOCH);
        assert!(refusal.unwrap_err().to_string().contains("credentials.pem"));
    }
}
