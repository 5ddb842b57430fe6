import HubEngine
import RabbitTransport
import Testing

@Suite struct BrokerAddressTests {
  @Test func aFullURLIsTakenApart() throws {
    let address = try BrokerAddress(
      url: "amqps://s%40les:p%2Fw%3A%25%C3%A9@mq.example.org:5699/branch%2Fnorth")
    #expect(address.isEncrypted)
    #expect(address.host == "mq.example.org")
    #expect(address.port == 5699)
    #expect(address.user == "s@les")
    #expect(address.password == "p/w:%é")
    #expect(address.virtualHost == "branch/north")
    #expect(address.authorityFile == nil)
  }

  @Test(arguments: [
    ("amqp://mq", UInt16(5672), "/"), ("amqps://mq", 5671, "/"), ("AMQP://mq/", 5672, "/"),
    ("amqp://mq:7/%2F", 7, "/"), ("amqp://mq:/x", 5672, "x"),
  ])
  func whatIsLeftOutHasItsDefault(url: String, port: UInt16, virtualHost: String) throws {
    let address = try BrokerAddress(url: url)
    #expect(address.host == "mq")
    #expect(address.port == port)
    #expect(address.virtualHost == virtualHost)
    #expect(address.user == "guest")
  }

  @Test func anIPv6AddressStandsInBrackets() throws {
    let address = try BrokerAddress(url: "amqp://a:b@[::1]:5673/v")
    #expect(address.host == "::1")
    #expect(address.port == 5673)
    #expect(address.description == "amqp://a@[::1]:5673 (virtual host v)")
    #expect(try BrokerAddress(url: "amqp://[fe80::1%eth0]").host == "fe80::1%eth0")
  }

  @Test func aColonInThePasswordIsKept() throws {
    #expect(try BrokerAddress(url: "amqp://a:b:c@h").password == "b:c")
    #expect(try BrokerAddress(url: "amqp://a:b@c@h").password == "b@c")
  }

  @Test func theAuthorityFileComesFromTheQuery() throws {
    #expect(
      try BrokerAddress(url: "amqps://h?cacertfile=/etc/hub/ca%20one.pem").authorityFile
        == "/etc/hub/ca one.pem")
    #expect(try BrokerAddress(url: "amqps://h/v?cacertfile=ca.pem").virtualHost == "v")
  }

  @Test(
    "BRK-13: no URL, readable or not, gives its password away",
    arguments: [
      "http://user:hunter2@host", "hunter2", "amqp://", "amqp://user:hunter2@",
      "amqp://user:hunter2@host:port",
      "amqp://user:hunter2@host:0", "amqp://user:hunter2@host:70000", "amqp://user:hun/ter2@host",
      "amqp://:hunter2@h",
      "amqp://user:hun?ter2@host", "amqp://user:hun#ter2@host", "amqp://user:%zzhunter2@host",
      "amqp://u:hunter2%0@h",
      "amqp://user:hunter2%00@host", "amqp://user:hunter2%ff@host", "amqp://user:hunter2@[::1",
      "amqp://u:hunter2@::1",
      "amqp://user:hunter2@[::1]x", "amqp://user:hunter2@[a b]", "amqp://user:hunter2@host/a/b",
      "amqp://user:hunter2@host?verify=none", "amqp://user:hunter2@host?cacertfile=",
      "amqp://user:hunter2@h?cacertfile=a&b=c",
    ])
  func anUnreadableURLIsRefusedWithoutItsPassword(url: String) {
    let error = #expect(throws: TransportError.self) { try BrokerAddress(url: url) }
    #expect(error?.kind == .badURL)
    for part in ["hunter2", "ter2", "hun/"] { #expect(error?.message.contains(part) == false) }
    #expect(error?.message.hasPrefix("the broker's URL cannot be read: ") == true)
  }

  @Test func theMessageSaysHowToMendIt() {
    let slash = #expect(throws: TransportError.self) { try BrokerAddress(url: "amqp://user:hun/ter2@host") }
    #expect(
      slash?.message
        == "the broker's URL cannot be read: an @ stands behind the host: in user and password write / as %2F, ? as %3F and @ as %40"
    )
    let port = #expect(throws: TransportError.self) { try BrokerAddress(url: "amqp://host:x") }
    #expect(port?.message == "the broker's URL cannot be read: the port is no number from 1 to 65535")
  }

  @Test("BRK-13: the description leaves the password out")
  func theDescriptionLeavesThePasswordOut() throws {
    let address = try BrokerAddress(url: "amqp://user:hunter2@host/v")
    #expect(address.description == "amqp://user@host:5672 (virtual host v)")
  }

  @Test func severalNodesStandBehindCommas() throws {
    let hosts = try BrokerAddress.list("amqp://u:a,b@one,AMQPS://u:p,amqp@two:5,amqp://[::1]/v").map(\.host)
    #expect(hosts == ["one", "two", "::1"])
    #expect(try BrokerAddress.list("amqp://u:a,b@one").map(\.password) == ["a,b"])
    for bad in ["amqp://one,", "amqp://one,amqp://", "amqp://one,amqp://two:x", ",amqp://one", ""] {
      #expect(throws: TransportError.self, "\(bad)") { try BrokerAddress.list(bad) }
    }
  }
}
