//! The proxy between a real client and a real server.

use std::time::Duration;

use sqs_etl_local::postgres::shared_postgres;
use sqs_etl_local::proxy::Proxy;
use tokio_postgres::{Client, Error, NoTls};

/// Long enough for the two halves of a flight to arrive together on a busy machine.
const DELAY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_query_is_one_round_trip_and_a_prepared_one_is_two() {
    let (proxy, client) = proxy_and_client().await;
    client.batch_execute("select 1").await.unwrap();
    assert_eq!(proxy.round_trips(), 1);
    client.query_typed("select 1", &[]).await.unwrap();
    assert_eq!(proxy.round_trips(), 2);
    client.query_one("select 1", &[]).await.unwrap();
    assert_eq!(proxy.round_trips(), 4);
}

#[tokio::test]
async fn a_pipelined_flight_is_one_round_trip() {
    let (proxy, client) = proxy_and_client().await;
    let (begin, insert, commit) = tokio::join!(
        client.batch_execute("begin"),
        client.query_typed("select generate_series(1, 5)", &[]),
        client.batch_execute("commit"),
    );
    begin.unwrap();
    commit.unwrap();
    assert_eq!(insert.unwrap().len(), 5);
    assert_eq!(proxy.round_trips(), 1);
    for _ in 0..3 {
        client.batch_execute("select 1").await.unwrap();
    }
    assert_eq!(proxy.round_trips(), 4);
}

#[tokio::test]
async fn connections_are_counted_apart_and_a_farewell_is_no_round_trip() {
    let (proxy, first) = proxy_and_client().await;
    let second = connect(&proxy).await.unwrap();
    proxy.reset();
    first.batch_execute("select 1").await.unwrap();
    for _ in 0..2 {
        second.batch_execute("select 1").await.unwrap();
    }
    drop(first);
    second.batch_execute("select 1").await.unwrap();
    assert_eq!(proxy.round_trips_by_connection(), [1, 3]);
    assert_eq!(proxy.connections(), 2);
}

#[tokio::test]
async fn what_passes_arrives_whole_and_in_order() {
    let (proxy, client) = proxy_and_client().await;
    proxy.set_delay(Duration::ZERO);
    let sent = "0123456789".repeat(500_000);
    let row = client.query_typed("select $1", &[(&sent, tokio_postgres::types::Type::TEXT)]).await;
    assert_eq!(row.unwrap()[0].get::<_, &str>(0), sent);
}

#[tokio::test]
async fn a_cut_breaks_what_is_there_and_new_connections_are_served() {
    let (proxy, client) = proxy_and_client().await;
    let busy = tokio::spawn(async move { client.batch_execute("select pg_sleep(3600)").await });
    while proxy.round_trips() == 0 {
        tokio::task::yield_now().await;
    }
    proxy.cut();
    assert!(busy.await.unwrap().unwrap_err().is_closed());
    connect(&proxy).await.unwrap().batch_execute("select 1").await.unwrap();
}

#[tokio::test]
async fn a_black_hole_takes_the_connection_and_never_answers() {
    let (proxy, client) = proxy_and_client().await;
    proxy.set_black_hole(true);
    let waited = tokio::time::timeout(10 * DELAY, connect(&proxy)).await;
    assert!(waited.is_err(), "it must neither be refused nor answered");
    client.batch_execute("select 1").await.expect("those that are there go on");
    proxy.set_black_hole(false);
    connect(&proxy).await.unwrap();
}

#[tokio::test]
async fn a_server_that_is_down_looks_closed() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let proxy = Proxy::start(nobody).unwrap();
    assert!(connect(&proxy).await.is_err());
}

async fn proxy_and_client() -> (Proxy, Client) {
    let proxy = Proxy::start(shared_postgres().port()).unwrap();
    let client = connect(&proxy).await.unwrap();
    proxy.set_delay(DELAY);
    proxy.reset();
    (proxy, client)
}

async fn connect(proxy: &Proxy) -> Result<Client, Error> {
    let url = format!("postgres://postgres:postgres@127.0.0.1:{}/postgres", proxy.port());
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}
