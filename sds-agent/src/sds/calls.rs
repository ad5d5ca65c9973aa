//! The calls of SDS that last, with buffers of the size of what goes through them.
//!
//! The generated server has room for 8 KiB in each direction of a stream, used or not, for as long as that is open. Requests of
//! Envoy have some hundred bytes, once its first one is made small, and responses come a few times a day. As there, messages of up to
//! 4 MiB are taken.

use std::{convert::Infallible, marker::PhantomData};

use bytes::Bytes;
use ca_core::BoxFuture;
use ca_proto::envoy::service::{
    discovery::v3::{
        DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
    },
    secret::v3::secret_discovery_service_server::{
        SecretDiscoveryService, SecretDiscoveryServiceServer,
    },
};
use http::{Request, Response};
use hyper::body::Body;
use prost::Message;
use tonic::{
    Status, Streaming,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::{Service as _, StdError},
    server::{Grpc, StreamingService},
};

use super::{SecretService, first_message::FirstMessage, stream::Responses};

/// What a buffer starts with. It grows with what goes through it.
const ROOM: usize = 256;

/// How much may be waiting before it is sent: as tonic has it.
const MOST_WAITING: usize = 32 * 1024;

/// Answers a request to `envoy.service.secret.v3.SecretDiscoveryService`.
pub(crate) async fn answer<B>(
    service: SecretService,
    request: Request<B>,
) -> Result<Response<tonic::body::Body>, Infallible>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let request = Request::from_parts(head, FirstMessage::of(&path, body));
    match path.strip_prefix("/envoy.service.secret.v3.SecretDiscoveryService/") {
        Some("StreamSecrets") => {
            let codec = SmallBuffers::<DiscoveryResponse, DiscoveryRequest>::new();
            Ok(Grpc::new(codec).streaming(Call(service), request).await)
        }
        Some("DeltaSecrets") => {
            let codec = SmallBuffers::<DeltaDiscoveryResponse, DeltaDiscoveryRequest>::new();
            Ok(Grpc::new(codec).streaming(Call(service), request).await)
        }
        // One request and one response, and what there is not.
        _ => {
            let mut generated = SecretDiscoveryServiceServer::new(service);
            generated.call(request).await
        }
    }
}

/// One call.
struct Call(SecretService);

impl StreamingService<DiscoveryRequest> for Call {
    type Response = DiscoveryResponse;
    type ResponseStream = Responses<DiscoveryResponse>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<DiscoveryRequest>>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.stream_secrets(request).await })
    }
}

impl StreamingService<DeltaDiscoveryRequest> for Call {
    type Response = DeltaDiscoveryResponse;
    type ResponseStream = Responses<DeltaDiscoveryResponse>;
    type Future = BoxFuture<'static, Result<tonic::Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: tonic::Request<Streaming<DeltaDiscoveryRequest>>) -> Self::Future {
        let service = self.0.clone();
        Box::pin(async move { service.delta_secrets(request).await })
    }
}

/// Protobuf, in buffers that start small.
struct SmallBuffers<T, U>(PhantomData<fn(T) -> U>);

impl<T, U> SmallBuffers<T, U> {
    fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Message + 'static, U: Message + Default + 'static> Codec for SmallBuffers<T, U> {
    type Encode = T;
    type Decode = U;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::new()
    }

    fn decoder(&mut self) -> Self {
        Self::new()
    }
}

impl<T: Message, U> Encoder for SmallBuffers<T, U> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, item: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let failed = |error: prost::EncodeError| Status::internal(error.to_string());
        item.encode(buffer).map_err(failed)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ROOM, MOST_WAITING)
    }
}

impl<T, U: Message + Default> Decoder for SmallBuffers<T, U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let failed = |error: prost::DecodeError| Status::internal(error.to_string());
        U::decode(buffer).map(Some).map_err(failed)
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ROOM, MOST_WAITING)
    }
}
