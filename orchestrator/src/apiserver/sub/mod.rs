//! Sub-resources.

pub(super) mod exec;
mod log;
mod pods;
pub(super) mod portforward;
mod scale;
mod usage;

use axum::response::Response;
use http::Method;
use http::request::Parts;

use super::error::ApiError;
use super::objects::Target;
use super::rest::{Call, object};

/// Whatever follows an object's name in the URL.
pub(super) async fn handle(
    call: &Call<'_>,
    parts: &Parts,
    name: &str,
    sub: &str,
) -> Result<Response, ApiError> {
    let kind = call.resource.kind;
    let method = &parts.method;
    match sub {
        "status" if kind.status => object(call, method, name, Target::Status).await,
        "scale" => match kind.scale {
            Some(scale) => scale::handle(call, method, name, scale).await,
            None => Err(ApiError::no_such_path()),
        },
        "usage" if kind.kind == "Node" => match *method {
            Method::GET => usage::usage(call, name).await,
            _ => Err(ApiError::method()),
        },
        _ if kind.kind != "Pod" => Err(ApiError::no_such_path()),
        "resize" => object(call, method, name, Target::Resize).await,
        "log" if *method == Method::GET => log::log(call, parts, name).await,
        "binding" if *method == Method::POST => pods::bind(call, name).await,
        "eviction" if *method == Method::POST => pods::evict(call, name).await,
        "log" | "binding" | "eviction" => Err(ApiError::method()),
        _ => Err(ApiError::no_such_path()),
    }
}
