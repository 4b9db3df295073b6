//! `/flok/v1`: what Docker has no word for.

mod doctor;
mod explain;
mod images;
mod plan;
mod stack;
mod stack_data;
mod status;
mod support;

use std::sync::Arc;

use axum::Router;
use axum::routing::{get, post};

use super::Backend;

pub fn routes<B: Backend>() -> Router<Arc<B>> {
    Router::new()
        .route("/flok/v1/stacks/{name}", post(stack::deploy::<B>).delete(stack::remove::<B>))
        .route("/flok/v1/stacks/{name}/plan", post(plan::plan::<B>))
        .route("/flok/v1/services/{name}/explain", get(explain::explain::<B>))
        .route("/flok/v1/images/resolve", post(images::resolve::<B>))
        .route("/flok/v1/network/doctor", get(doctor::doctor::<B>))
        .route("/flok/v1/status", get(status::status::<B>))
        .route("/flok/v1/support-bundle", get(support::bundle::<B>))
}
