//! The query of a request, as Docker reads it: of a key that is there twice the first counts, and one without a value is as one
//! that is not there. What is wrong with it is told like every other error.

use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::ApiError;

pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Query<T>, ApiError> {
        read(parts.uri.query().unwrap_or_default()).map(Query)
    }
}

fn read<T: DeserializeOwned>(query: &str) -> Result<T, ApiError> {
    let mut pairs: Vec<(&str, &str)> = Vec::new();
    for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        if !value.is_empty() && pairs.iter().all(|(known, _)| *known != key) {
            pairs.push((key, value));
        }
    }
    let kept: Vec<String> = pairs.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    let uri: Uri =
        format!("/?{}", kept.join("&")).parse().map_err(|_| ApiError::invalid("the query cannot be read"))?;
    match axum::extract::Query::<T>::try_from_uri(&uri) {
        Ok(axum::extract::Query(read)) => Ok(read),
        Err(error) => {
            let text = error.body_text();
            let (_, why) = text.split_once(": ").unwrap_or(("", &text));
            Err(ApiError::invalid(format!("bad parameter in the query: {why}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Asked {
        version: u64,
        limit: Option<i64>,
        name: Option<String>,
    }

    #[test]
    fn of_a_key_the_first_counts_and_nothing_is_as_none() {
        let read = read::<Asked>("version=3&limit=&name=a%22b&version=x&name=c&flag").unwrap();
        assert_eq!(read, Asked { version: 3, limit: None, name: Some("a\"b".into()) });
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, named) in [("version=abc", "version"), ("", "version"), ("version=1&limit=abc", "limit")] {
            let refused = read::<Asked>(query).unwrap_err();
            assert!(matches!(&refused, ApiError::Invalid(why) if why.contains(named)), "{refused}");
            assert!(!refused.to_string().contains("deserialize"), "{refused}");
        }
    }
}
