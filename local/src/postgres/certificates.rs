//! A certificate authority, a server certificate of its making, and an authority that has nothing
//! to do with either. For one test's lifetime; not a way to make certificates for real servers.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// PEM texts. The keys are P-256.
#[derive(Debug)]
pub(super) struct Certificates {
    pub(super) ca: String,
    pub(super) unrelated_ca: String,
    pub(super) server: String,
    pub(super) server_key: String,
}

impl Certificates {
    /// `names` are the DNS names and IP addresses that the server's certificate is good for.
    pub(super) fn for_names(names: &[String]) -> Result<Self> {
        let ca_key = KeyPair::generate().context("make a key")?;
        let ca_params = authority("sqs-etl test authority")?;
        let ca = ca_params.self_signed(&ca_key).context("sign the authority")?.pem();
        let issuer = Issuer::new(ca_params, ca_key);

        let server_key = KeyPair::generate().context("make a key")?;
        let server = CertificateParams::new(names)
            .context("the server's names")?
            .signed_by(&server_key, &issuer)
            .context("sign the server's certificate")?;

        let unrelated_ca = authority("sqs-etl unrelated authority")?
            .self_signed(&KeyPair::generate().context("make a key")?)
            .context("sign the unrelated authority")?;
        Ok(Self { ca, unrelated_ca: unrelated_ca.pem(), server: server.pem(), server_key: server_key.serialize_pem() })
    }
}

fn authority(name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(Vec::new()).context("an authority")?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
