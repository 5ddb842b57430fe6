import CRabbitMQ
import Glibc
import HubEngine
import Synchronization
import Testing

@testable import RabbitTransport

@Suite struct TopologyTests {
  @Test(arguments: [
    ("north-1", true), ("a", true), ("", false), ("North", false), ("a.b", false), ("é", false),
  ])
  func officeNamesAreNarrow(name: String, isValid: Bool) {
    #expect(Topology.isValid(office: name) == isValid)
  }

  @Test func anOfficeNameEndsAt32Characters() {
    #expect(Topology.isValid(office: String(repeating: "x", count: 32)))
    #expect(!Topology.isValid(office: String(repeating: "x", count: 33)))
  }

  @Test func whatANewcomerLeavesGoesByItself() {
    let queue = Topology.Queue(name: "q", type: .classic, bytesMax: 1, source: nil, expires: .seconds(300))
    #expect(queue.arguments(brokerMajor: 3).contains { $0.0 == "x-expires" && $0.1 == .number(300_000) })
    #expect(Topology.newcomerQueue(-1) == "hub.enrol.ffffffffffffffff")
    let office = Topology.headQueues(offices: ["a"], type: .classic, bytesMax: 1)
    #expect(office.allSatisfy { !$0.arguments(brokerMajor: 3).map(\.0).contains("x-expires") })
  }

  /// Believed: only what carries batches must outlive a node. A classic `hub.dead` on a node that is down cannot be
  /// declared, and head does not connect without.
  @Test func whereAnyQueueIsAQuorumQueueAllAre() {
    #expect(Topology.headQueues(offices: ["a"], type: .quorum, bytesMax: 1).allSatisfy { $0.type == .quorum })
  }

  @Test("BRK-02: every queue is bounded and drops its oldest; none sends what it drops to hub.dead")
  func everyQueueIsBounded() {
    for type in Topology.QueueType.allCases {
      for queue in Topology.headQueues(offices: ["a", "b"], type: type, bytesMax: 1000) {
        let arguments = queue.arguments(brokerMajor: 4)
        let names = arguments.map(\.0)
        #expect(names.contains("x-max-length-bytes"))
        #expect(arguments.contains { $0.0 == "x-overflow" && $0.1 == .text("drop-head") })
        #expect(!names.contains("x-dead-letter-exchange"))
      }
    }
  }
}

extension TopologyTests {
  /// Believed: -1 means "no delivery limit" everywhere. It does from 4.0 on; 3.10 lost the message at its first
  /// redelivery.
  @Test("BRK-12: only a broker that drops after 20 deliveries is told not to")
  func theDeliveryLimitIsLiftedWhereThereIsOne() {
    let queue = Topology.Queue(name: "q", type: .quorum, bytesMax: 1, source: nil)
    #expect(queue.arguments(brokerMajor: 4).contains { $0.0 == "x-delivery-limit" && $0.1 == .number(-1) })
    for major in [0, 3] {
      #expect(!queue.arguments(brokerMajor: major).contains { $0.0 == "x-delivery-limit" })
    }
  }
}

@Suite struct AMQPFaultTests {
  @Test(arguments: [
    (AMQPFault.Scope.channel, 404, "no queue 'hub.office.a'", TransportError.Kind.queueMissing),
    (.channel, 403, "queue 'hub.head' in vhost '/' in exclusive use", .queueInUse),
    (.channel, 403, "access to queue 'x' refused for user 'y'", .notAllowed),
    (.channel, 405, "cannot obtain exclusive access", .queueInUse),
    (.channel, 406, "inequivalent arg", .notAllowed),
    (
      .channel, 406, "delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms",
      .unreachable
    ),
    (.connection, 403, "Login was refused", .refused), (.connection, 530, "vhost not found", .refused),
    (.connection, 320, "broker forced connection closure", .unreachable),
    (.connection, 540, "not implemented", .notAllowed),
    (.library, Int(AMQP_STATUS_SOCKET_ERROR.rawValue), "socket", .unreachable),
    (.library, Int(AMQP_STATUS_HEARTBEAT_TIMEOUT.rawValue), "heartbeat", .unreachable),
    (.library, Int(AMQP_STATUS_SSL_PEER_VERIFY_FAILED.rawValue), "certificate", .refused),
  ])
  func aFaultHasItsMeaning(scope: AMQPFault.Scope, code: Int, text: String, kind: TransportError.Kind) {
    let fault = AMQPFault(scope: scope, code: code, text: text, doing: "work")
    #expect(fault.transportError.kind == kind)
    #expect(fault.transportError.message.hasPrefix("cannot work: \(text)"))
  }

  @Test func aMessageIsOneLine() {
    let fault = AMQPFault(scope: .channel, code: 406, text: "one\ntwo\r\nthree", doing: "declare queue q")
    #expect(fault.transportError.message == "cannot declare queue q: one two three (406)")
  }
}

@Suite struct IncomingContentTests {
  @Test func aMessageIsCompleteAtItsAnnouncedSize() {
    var content = IncomingContent(.delivery(tag: 7, redelivered: true))
    #expect(!content.isComplete)
    content.begin(size: 5) { $0.messageID = "m" }
    for part in [[UInt8]([1, 2, 3]), [4, 5]] {
      #expect(!content.isComplete)
      part.withUnsafeBytes { content.add($0) }
    }
    #expect(content.isComplete)
    #expect(content.delivery.body == [1, 2, 3, 4, 5])
    #expect(content.delivery.tag.rawValue == 7)
    #expect(content.delivery.redelivered)
    #expect(content.delivery.messageID == "m")
  }

  @Test func anEmptyMessageIsCompleteWithItsHeader() {
    var content = IncomingContent(.delivery(tag: 1, redelivered: false))
    content.begin(size: 0) { _ in }
    #expect(content.isComplete)
  }

  @Test("BRK-11: of a message beyond the limit only the first part is kept")
  func anEndlessMessageDoesNotFillTheMemory() {
    var content = IncomingContent(.delivery(tag: 1, redelivered: false))
    let part = [UInt8](repeating: 9, count: 1 << 20)
    content.begin(size: 40 << 20) { _ in }
    for _ in 1...40 { part.withUnsafeBytes { content.add($0) } }
    #expect(content.isComplete)
    #expect(content.delivery.body.count == IncomingContent.bodyBytesMax)
  }
}

@Suite struct SignalTests {
  @Test func aChangeBeforeTheWaitIsNotMissed() async {
    let signal = Signal()
    let seen = signal.generation
    signal.fire()
    await signal.wait(after: seen)
  }

  @Test func everybodyWhoWaitsIsWoken() async throws {
    let signal = Signal()
    let seen = signal.generation
    try await within(.seconds(5)) {
      await withTaskGroup(of: Void.self) { group in
        for _ in 1...50 { group.addTask { await signal.wait(after: seen) } }
        signal.fire()
      }
    }
  }

  @Test func aCancelledTaskWaitsNoLonger() async throws {
    let signal = Signal()
    try await within(.seconds(5)) {
      for _ in 1...200 {
        let task = Task { await signal.wait(after: signal.generation) }
        if Bool.random() { await Task.yield() }
        task.cancel()
        await task.value
      }
    }
  }
}

@Suite struct SessionFateTests {
  @Test func theFirstErrorHolds() {
    let fate = SessionFate()
    #expect(fate.end(TransportError(.queueMissing, "gone")).kind == .queueMissing)
    #expect(fate.end(TransportError(.unreachable, "later")).kind == .queueMissing)
    #expect(fate.error?.message == "gone")
  }

  @Test("BRK-05: a thread that stays in one call is seen, and its socket is shut down")
  func aStuckThreadIsFreed() throws {
    var pair: [Int32] = [0, 0]
    try #require(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0)
    defer { for descriptor in pair { close(descriptor) } }
    let socket = try #require(SocketHandle(duplicating: pair[0]))
    let fate = SessionFate()
    fate.add(socket)
    fate.endIfStuck(after: .zero)
    #expect(fate.error == nil)
    socket.entering()
    usleep(2000)
    fate.endIfStuck(after: .seconds(60))
    #expect(fate.error == nil)
    fate.endIfStuck(after: .milliseconds(1))
    #expect(fate.error?.kind == .unreachable)
    var byte: UInt8 = 0
    #expect(read(pair[1], &byte, 1) == 0, "the other end sees the end of the stream")
  }
}
