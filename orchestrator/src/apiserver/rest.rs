//! One handler for every resource of the table.

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};

use super::accept::{Form, form};
use super::error::ApiError;
use super::objects::{DeleteOptions, Deleted, Target, Written, set_requester};
use super::patch::Patch;
use super::path::Resource;
use super::query::Query;
use super::share::{Client, Cost, Seat};
use super::{ApiServer, body, held, list, measure, protobuf, sub, table, watch};
use crate::kinds::codec;
use crate::pki::ADMINISTRATOR;
use crate::store::Version;

/// Characters of all warnings of an answer together, and of one where they come to more, as in Kubernetes.
const WARNINGS: usize = 4096;
const WARNING: usize = 256;
/// What an object grows by when its resourceVersion is put in, and a little more.
const SPLICED_BYTES: usize = 64;

/// The parts of a request that handlers look at.
pub(super) struct Call<'a> {
    pub server: &'a ApiServer,
    pub resource: Resource<'a>,
    pub client: Client,
    pub query: Query,
    pub form: Form,
    pub headers: &'a HeaderMap,
    pub body: Bytes,
}

/// Anything below `/api/v1` and `/apis/<group>/<version>`.
pub(super) async fn resource(State(server): State<ApiServer>, request: Request) -> Response {
    match handle(server, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn handle(server: ApiServer, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    // Nobody asks by a body; what is not read does not wait here either, however long the answer takes.
    let body = match parts.method {
        Method::GET => Body::empty(),
        _ => body,
    };
    let path = percent_decode(parts.uri.path())?;
    let resource = Resource::parse(&path)?;
    if resource.kind.kind == "Pod" {
        match resource.sub {
            Some("exec") => return sub::exec::exec(server, &resource, parts).await,
            Some("attach") => return sub::exec::attach(server, &resource, parts).await,
            Some("portforward") => return sub::portforward::port_forward(server, &resource, parts).await,
            _ => {}
        }
    }
    let client = Client::of(&parts.extensions);
    let body = body::read(&parts, body, &server.limits).await?;
    let query = Query::parse(parts.uri.query())?;
    let seat = body.seated(server.share.enter(Cost::Light, &client)).await?;
    let call = Call {
        server: &server,
        resource,
        client,
        query,
        form: form(&parts.headers),
        headers: &parts.headers,
        body: body.bytes.clone(),
    };
    match (call.resource.name, call.resource.sub) {
        (None, _) => collection(&call, &parts.method, seat).await,
        (Some(name), Some("log")) => {
            // It may be silent for hours.
            drop(seat);
            let counted = server.share.stream(&call.client)?;
            let response = sub::handle(&call, &parts, name, "log").await?;
            Ok(held::keep(response, counted))
        }
        (Some(name), None) => object(&call, &parts.method, name, Target::Main).await,
        (Some(name), Some(name_of_sub)) => sub::handle(&call, &parts, name, name_of_sub).await,
    }
}

fn percent_decode(path: &str) -> Result<String, ApiError> {
    if !path.contains('%') {
        return Ok(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(b) = rest.next() {
        let decoded = match b {
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                let (high, low) = (digit(rest.next()), digit(rest.next()));
                high.zip(low).and_then(|(h, l)| u8::try_from(h * 16 + l).ok())
            }
            b => Some(b),
        };
        bytes.push(decoded.ok_or_else(|| ApiError::bad_request("the path is not well encoded"))?);
    }
    String::from_utf8(bytes).map_err(|_| ApiError::bad_request("the path is not UTF-8"))
}

async fn collection(call: &Call<'_>, method: &Method, seat: Seat) -> Result<Response, ApiError> {
    match *method {
        Method::GET if call.query.is_watch() => watch::watch(call, seat).await,
        Method::GET => list::list(call, seat).await,
        Method::POST => create(call).await,
        Method::DELETE => {
            drop(seat);
            let _seat = call.server.share.enter(Cost::Heavy, &call.client).await?;
            delete_all(call).await
        }
        _ => Err(ApiError::method()),
    }
}

/// GET, PUT, PATCH, DELETE of an object or of a part of it.
pub(super) async fn object(
    call: &Call<'_>,
    method: &Method,
    name: &str,
    target: Target,
) -> Result<Response, ApiError> {
    let Resource { kind, .. } = call.resource;
    let namespace = call.resource.namespace();
    match *method {
        Method::GET => {
            let found = call.server.objects.stored(kind, namespace, name).await?;
            Ok(call.stored(&found))
        }
        Method::PUT => {
            let options = call.query.write_options()?;
            let input = call.json()?;
            let done = call
                .server
                .objects
                .update(kind, namespace, name, input, target, options)
                .await?;
            Ok(call.written(StatusCode::OK, done))
        }
        Method::PATCH => {
            let options = call.query.write_options()?;
            let patch = Patch::parse(call.content_type(), &call.body, kind, &call.server.limits.objects)?;
            let change =
                |old: &Value| without_version(patch.apply(old, &call.server.limits.patch)?, old, &patch);
            let done = call
                .server
                .objects
                .modify(kind, namespace, name, target, options, change)
                .await?;
            Ok(call.written(StatusCode::OK, done))
        }
        Method::DELETE if target == Target::Main => delete(call, name).await,
        _ => Err(ApiError::method()),
    }
}

/// A patch that does not speak of the resourceVersion is not bound to one: it may be tried again.
fn without_version(mut new: Value, old: &Value, patch: &Patch) -> Result<Value, ApiError> {
    let named = match patch {
        Patch::Merge(fields) | Patch::Strategic(fields) => {
            fields.pointer("/metadata/resourceVersion").is_some()
        }
        Patch::Json(_) => {
            new.pointer("/metadata/resourceVersion") != old.pointer("/metadata/resourceVersion")
        }
    };
    if !named && let Some(metadata) = new.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    Ok(new)
}

async fn create(call: &Call<'_>) -> Result<Response, ApiError> {
    let kind = call.resource.kind;
    if kind.namespaced && call.resource.namespace.is_none() {
        return Err(ApiError::method());
    }
    let options = call.query.write_options()?;
    let mut input = call.json()?;
    if kind.kind == "Namespace" && call.client.user != ADMINISTRATOR {
        set_requester(&mut input, Some(&call.client.user));
    }
    let done = call
        .server
        .objects
        .create(kind, call.resource.namespace(), input, options)
        .await?;
    Ok(call.written(StatusCode::CREATED, done))
}

fn delete_options(call: &Call<'_>) -> Result<DeleteOptions, ApiError> {
    let body = if call.body.is_empty() {
        Value::Null
    } else {
        call.json()?
    };
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
    let policy = text("/propagationPolicy").or_else(|| call.query.propagation_policy.clone());
    if policy.as_deref() == Some("Orphan") || body["orphanDependents"] == true {
        return Err(ApiError::bad_request(
            "propagationPolicy Orphan is not supported: remove the ownerReferences of the dependents first",
        ));
    }
    if let Some(unknown) = policy.filter(|policy| !["Foreground", "Background"].contains(&policy.as_str())) {
        return Err(ApiError::bad_request(format!(
            "propagationPolicy: unsupported value {unknown:?}; supported are \"Foreground\" and \"Background\""
        )));
    }
    Ok(DeleteOptions {
        grace_period_seconds: body["gracePeriodSeconds"]
            .as_i64()
            .or(call.query.grace_period_seconds),
        uid: text("/preconditions/uid"),
        resource_version: text("/preconditions/resourceVersion"),
        dry_run: call.query.dry_run()? || body["dryRun"] == json!(["All"]),
    })
}

async fn delete(call: &Call<'_>, name: &str) -> Result<Response, ApiError> {
    let kind = call.resource.kind;
    let options = delete_options(call)?;
    match call
        .server
        .objects
        .delete(kind, call.resource.namespace(), name, &options)
        .await?
    {
        Deleted::Marked(object) => Ok(call.answer(StatusCode::OK, object)),
        Deleted::Gone(object) => {
            let details = json!({"name": name, "group": kind.group, "kind": kind.plural, "uid": object["metadata"]["uid"]});
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details});
            Ok(axum::Json(status).into_response())
        }
    }
}

async fn delete_all(call: &Call<'_>) -> Result<Response, ApiError> {
    let kind = call.resource.kind;
    if kind.namespaced && call.resource.namespace.is_none() {
        return Err(ApiError::method());
    }
    let options = delete_options(call)?;
    let selector = call.query.selector(&call.server.limits.objects)?;
    let listing = call
        .server
        .objects
        .list(kind, call.resource.namespace, &selector)
        .await?;
    for object in listing.items.iter().map(codec::decode) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        match call
            .server
            .objects
            .delete(kind, call.resource.namespace(), name, &options)
            .await
        {
            Err(error) if error.code != StatusCode::NOT_FOUND => return Err(error),
            _ => {}
        }
    }
    let metadata = json!({"resourceVersion": listing.revision.to_string()});
    list::answer(call, listing, &metadata)
}

impl Call<'_> {
    /// The body, JSON or protobuf, as JSON. YAML and others: 415.
    pub fn json(&self) -> Result<Value, ApiError> {
        let media = self.content_type();
        if media.starts_with("application/vnd.kubernetes.protobuf") {
            return protobuf::decode(&self.body).map_err(|e| ApiError::media_type(e.to_string()));
        }
        if !media.is_empty() && !media.contains("json") {
            return Err(ApiError::media_type(format!(
                "the body is {media}: send application/json"
            )));
        }
        measure::scan(&self.body, &self.server.limits.objects)
            .map_err(|e| ApiError::too_large(e.to_string()))?;
        let body: Value = serde_json::from_slice(&self.body)
            .map_err(|e| ApiError::bad_request(format!("the body cannot be read as JSON: {e}")))?;
        if !body.is_object() {
            return Err(ApiError::bad_request("the body must be an object"));
        }
        Ok(body)
    }

    pub fn content_type(&self) -> &str {
        self.headers
            .get(CONTENT_TYPE)
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default()
    }

    /// An object in the form that the client wants.
    pub fn answer(&self, code: StatusCode, object: Value) -> Response {
        let shaped = table::shape(self.resource.kind, object, self.form, &self.query.include_object);
        (code, axum::Json(shaped)).into_response()
    }

    /// A stored object, parsed only if another form is wanted.
    fn stored(&self, version: &Version) -> Response {
        if self.form != Form::Object {
            return self.answer(StatusCode::OK, codec::decode(version));
        }
        let mut body = BytesMut::with_capacity(version.value.len() + SPLICED_BYTES);
        codec::splice(&version.value, version.mod_revision, &mut body);
        ([(CONTENT_TYPE, "application/json")], body.freeze()).into_response()
    }

    /// As [`Self::answer`], with Warning headers (RFC 9111 as Kubernetes uses it: code 299).
    pub fn written(&self, code: StatusCode, done: Written) -> Response {
        let mut response = self.answer(code, done.object);
        warn(&mut response, &done.warnings);
        response
    }
}

/// Adds Warning headers.
pub(super) fn warn(response: &mut Response, warnings: &[String]) {
    let mut room = WARNINGS;
    let all: usize = warnings.iter().map(|warning| warning.chars().count()).sum();
    let most = if all > WARNINGS { WARNING } else { WARNINGS };
    for warning in warnings {
        let quoted: String = warning
            .chars()
            .take(most)
            .collect::<String>()
            .replace('\\', "\\\\")
            .replace('"', "\\\"")
            .replace(char::is_control, " ");
        let Some(rest) = room.checked_sub(quoted.len()) else {
            return;
        };
        room = rest;
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response
                .headers_mut()
                .append(HeaderName::from_static("warning"), value);
        }
    }
}
