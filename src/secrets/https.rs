//! The HTTP client that the AWS SDK sends its requests with: HTTP/1.1, with the parts that the Lambda runtime's own client
//! is made of. The SDK's client speaks HTTP/2 too: 0.6 MB that Secrets Manager does not need. Not here: limits other than
//! the one for connecting, and retries.

use std::{io, sync::Arc, time::Duration};

use anyhow::{Chain, Context};
use aws_smithy_runtime_api::{
    client::{
        http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
        orchestrator::{HttpRequest, HttpResponse},
        result::ConnectorError,
    },
    shared::IntoShared,
};
use aws_smithy_types::body::SdkBody;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect},
    rt::TokioExecutor,
};
use rustls::{ClientConfig, RootCertStore, crypto::ring};

/// A client that trusts the machine's root certificates, some 150 to read, unless the server named speaks plain HTTP; then
/// none is trusted. `connect_limit` bounds the TCP handshake.
pub fn client(endpoint: Option<&str>, connect_limit: Duration) -> anyhow::Result<SharedHttpClient> {
    // The crypto that TLS to the database uses too: one such library in the program.
    let crypto = Arc::new(ring::default_provider());
    let builder = HttpsConnectorBuilder::new();
    let builder = if endpoint.is_some_and(|url| url.starts_with("http://")) {
        let config = ClientConfig::builder_with_provider(crypto).with_safe_default_protocol_versions()?;
        builder.with_tls_config(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
    } else {
        builder.with_provider_and_native_roots(crypto).context("read this machine's root certificates")?
    };
    let mut tcp = connect::HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_limit));
    let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
    let connector: SharedHttpConnector = Http1(Client::builder(TokioExecutor::new()).build(connector)).into_shared();
    Ok(http_client_fn(move |_, _| connector.clone()))
}

/// One pool of connections for all.
#[derive(Debug)]
struct Http1(Client<HttpsConnector<connect::HttpConnector>, SdkBody>);

impl HttpConnector for Http1 {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move {
            let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
            let response = client.request(request).await.map_err(connector_error)?;
            let response = HttpResponse::try_from(response.map(SdkBody::from_body_1_x));
            response.map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// The SDK tries again what is a time-out or broke off, and nothing else.
fn connector_error(error: hyper_util::client::legacy::Error) -> ConnectorError {
    let cause = Chain::new(&error).find_map(|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind));
    let broke_off = Chain::new(&error).find_map(|cause| cause.downcast_ref::<hyper::Error>());
    let broke_off =
        broke_off.is_some_and(|error| error.is_closed() || error.is_canceled() || error.is_incomplete_message());
    match cause {
        Some(io::ErrorKind::TimedOut) => ConnectorError::timeout(error.into()),
        Some(_) => ConnectorError::io(error.into()),
        None if error.is_connect() || broke_off => ConnectorError::io(error.into()),
        None => ConnectorError::other(error.into(), None),
    }
}
