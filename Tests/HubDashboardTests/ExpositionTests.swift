import HubDashboard
import Testing

struct ExpositionTests {
  @Test("a metric has its help, its type and a line a sample, in the text format 0.0.4")
  func format() {
    var page = Exposition()
    page.gauge("hub_branch_pending_rows", "Rows.", [.init([("branch", "a")], 3), .init([("branch", "b")], 0.25)])
    page.counter("hub_rows_sent_total", "Sent.", 12_000_000)
    page.gauge("hub_paused", "Paused.", false)
    #expect(
      page.text == """
        # HELP hub_branch_pending_rows Rows.
        # TYPE hub_branch_pending_rows gauge
        hub_branch_pending_rows{branch="a"} 3
        hub_branch_pending_rows{branch="b"} 0.25
        # HELP hub_rows_sent_total Sent.
        # TYPE hub_rows_sent_total counter
        hub_rows_sent_total 12000000
        # HELP hub_paused Paused.
        # TYPE hub_paused gauge
        hub_paused 0

        """)
  }

  @Test("labels of the page stand on every sample, before its own")
  func labelsOfThePage() {
    var page = Exposition([("office", "head")])
    page.gauge("a", "A.", true)
    page.gauge("b", "B.", [.init([("branch", "north")], 2)])
    #expect(
      page.text.split(separator: "\n").filter { !$0.hasPrefix("#") } == [
        #"a{office="head"} 1"#, #"b{office="head",branch="north"} 2"#,
      ])
  }

  @Test("what is unknown is left out")
  func unknown() {
    var page = Exposition()
    page.gauge("hub_incoming_lag_seconds", "Lag.", nil)
    page.gauge("hub_branch_pending_rows", "Rows.", [])
    #expect(page.text == "")
  }

  @Test("quotes, backslashes and ends of lines cannot leave a label's value")
  func escapes() {
    var page = Exposition()
    page.gauge("a", "of \\ and\nmore \"", [.init([("l", "x\"} 1\n\\")], .infinity), .init([("l", "y")], .nan)])
    #expect(
      page.text == #"""
        # HELP a of \\ and\nmore "
        # TYPE a gauge
        a{l="x\"} 1\n\\"} +Inf
        a{l="y"} NaN

        """#)
  }
}

struct ListenAddressTests {
  @Test(
    "a port alone is this machine only",
    arguments: [
      ("9464", "127.0.0.1:9464"), (":9464", "127.0.0.1:9464"), ("localhost:1", "127.0.0.1:1"), ("0", "127.0.0.1:0"),
      ("0.0.0.0:65535", "0.0.0.0:65535"), ("[::]:80", "[::]:80"), ("[::1]:80", "[::1]:80"),
      ("monitor.example:80", "monitor.example:80"),
    ])
  func addresses(text: String, means: String) {
    #expect(ListenAddress(text)?.description == means)
  }

  @Test(
    "anything else is no address",
    arguments: ["", ":", "host:", "65536", "-1", "::1", "::1:80", "http://x:80", "x:80/", "x:٣", "x:+8", "[::1:80"])
  func noAddresses(text: String) {
    #expect(ListenAddress(text) == nil)
  }
}
