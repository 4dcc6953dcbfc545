//! The event as it came off the wire. lambda_runtime has serde_json read it before the handler sees it, which for an event
//! of megabytes is a second look at every byte, and a copy; so it is handed around that.

use std::cell::Cell;
use std::task::{Context, Poll};

use bytes::Bytes;
use lambda_runtime::tower::Layer;
use lambda_runtime::{LambdaInvocation, Service};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// An event's bytes, whatever they say.
pub struct Payload(Bytes);

impl Payload {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

/// Keeps events from lambda_runtime's parser; without it they are parsed and copied, and nothing else is different.
pub struct Untouched;

/// What [`Untouched`] makes of a service.
#[derive(Clone)]
pub struct UntouchedService<S>(S);

thread_local! {
    /// The event of the call that this thread is in.
    static EVENT: Cell<Option<Bytes>> = const { Cell::new(None) };
}

impl<S> Layer<S> for Untouched {
    type Service = UntouchedService<S>;

    fn layer(&self, service: S) -> Self::Service {
        UntouchedService(service)
    }
}

impl<S: Service<LambdaInvocation>> Service<LambdaInvocation> for UntouchedService<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    /// The payload is made within the call, before the future is there, so it is this thread that looks for it.
    fn call(&mut self, mut invocation: LambdaInvocation) -> Self::Future {
        EVENT.set(Some(std::mem::replace(&mut invocation.body, Bytes::from_static(b"null"))));
        let future = self.0.call(invocation);
        EVENT.take();
        future
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match EVENT.take() {
            Some(bytes) => IgnoredAny::deserialize(deserializer).map(|_| Self(bytes)),
            None => Box::<RawValue>::deserialize(deserializer)
                .map(|raw| Self(Bytes::from(String::from(Box::<str>::from(raw))))),
        }
    }
}
