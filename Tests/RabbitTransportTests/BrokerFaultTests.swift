import Foundation
import HubEngine
import Logging
import Testing

@testable import RabbitTransport

extension BrokerTests {
  @Suite(.serialized) struct Refusing {
    @Test("BRK-13: a wrong password is refused, and not repeated")
    func aWrongPasswordIsRefused() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport(url: broker.url(password: "hunter2"))
        let error = await #expect(throws: TransportError.self) {
          _ = try await transport.open(.head(offices: []))
        }
        #expect(error?.kind == .refused)
        #expect(error?.message.contains("hunter2") == false)
        #expect(error?.message.contains("cannot log in as \(broker.address.user)") == true)
      }
    }

    @Test func anUnknownVirtualHostIsRefused() async throws {
      try await TestBroker.with { broker in
        let url =
          "amqp://\(broker.address.user):\(broker.address.password)@\(broker.address.host):\(broker.address.port)/nowhere"
        #expect(await kind { _ = try await broker.transport(url: url).open(.head(offices: [])) } == .refused)
      }
    }

    @Test func whereNobodyListensNobodyIsReached() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport(url: broker.url(port: 1))
        let error = await #expect(throws: TransportError.self) {
          _ = try await transport.open(.head(offices: []))
        }
        #expect(error?.kind == .unreachable)
        #expect(error?.message == "cannot reach the broker at \(broker.address.host):1: nobody answers there")
        let unknown = try broker.transport(url: broker.url(host: "no-such-host.invalid"))
        #expect(await kind { _ = try await unknown.open(.head(offices: [])) } == .unreachable)
      }
    }

    @Test("BRK: of several nodes the first that answers serves; of none every reason is told")
    func anotherNodeServes() async throws {
      try await TestBroker.with { broker in
        let dead = broker.url(host: "127.0.0.1", port: 1)
        let session = try await broker.transport(url: "\(dead),\(broker.url())").open(.head(offices: []))
        try await session.publish([1], to: .head, messageID: "x")
        let delivery = try await session.next()
        #expect(delivery.body == [1])
        await session.close()
        let none = try broker.transport(url: "\(dead),\(broker.url(host: "127.0.0.1", port: 2))")
        let error = await #expect(throws: TransportError.self) { _ = try await none.open(.head(offices: [])) }
        #expect(error?.message.contains("127.0.0.1:1: ") == true && error?.message.contains("127.0.0.1:2: ") == true)
        #expect(!none.description.contains(broker.address.password))
      }
    }

    @Test("BRK-06: somebody who listens but says nothing is given up")
    func aSilentListenerIsGivenUp() async throws {
      try await TestBroker.with { broker in
        let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(listener) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
        var length = socklen_t(MemoryLayout<sockaddr_in>.size)
        let bound = withUnsafeMutablePointer(to: &address) {
          $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            bind(listener, $0, length) == 0 && listen(listener, 5) == 0
              && getsockname(listener, $0, &length) == 0
          }
        }
        try #require(bound)
        let transport = try broker.transport(
          url: broker.url(host: "127.0.0.1", port: UInt16(bigEndian: address.sin_port)))
        let start = ContinuousClock.now
        #expect(await kind { _ = try await transport.open(.head(offices: [])) } == .unreachable)
        #expect(start.duration(to: .now) < .seconds(10))
        let opening = Task { await kind { _ = try await transport.open(.head(offices: [])) } }
        try await Task.sleep(for: .milliseconds(100))
        opening.cancel()
        #expect(try await within(.seconds(1)) { await opening.value } == .closed)
      }
    }

    @Test("BRK-03, BRK-09: a branch whose queue is missing is told so, and declares nothing")
    func aMissingQueueIsReported() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        #expect(await kind { _ = try await transport.open(.branch(office: "north")) } == .queueMissing)
        #expect(
          try TestBroker.control(["list_queues", "-p", broker.address.virtualHost, "--no-table-headers"])
            == "")
      }
    }

    @Test("BRK-10: a second consumer is refused", arguments: [Topology.QueueType.classic])
    func aSecondConsumerIsRefused(type: Topology.QueueType) async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport(queueType: type)
        let head = try await transport.open(.head(offices: ["north"]))
        let first = try await transport.open(.branch(office: "north"))
        #expect(await kind { _ = try await transport.open(.branch(office: "north")) } == .queueInUse)
        #expect(await kind { _ = try await transport.open(.head(offices: [])) } == .queueInUse)
        await first.close()
        let next = try await transport.open(.branch(office: "north"))
        await next.close()
        await head.close()
      }
    }

    @Test("BRK-10: on a quorum queue the second consumer gets nothing while the first lives")
    func aQuorumQueueHasOneActiveConsumer() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport(queueType: .quorum)
        let head = try await transport.open(.head(offices: ["north"]))
        let first = try await transport.open(.branch(office: "north"))
        let second = try await transport.open(.branch(office: "north"))
        try await head.publish([1], to: .branches, messageID: "a")
        try await head.confirmed()
        let delivery = try await within(.seconds(5)) { try await first.next() }
        #expect(delivery.messageID == "a")
        await first.close()
        let taken = try await within(.seconds(10)) { try await second.next() }
        #expect(taken.messageID == "a")
        #expect(taken.redelivered)
        try await second.acknowledge(taken.tag)
        await second.close()
        await head.close()
      }
    }

    @Test("BRK-04: the broker refuses a forged user, and the session ends")
    func aForgedUserIsRefused() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: []))
        let fate = SessionFate()
        let forger = Publisher(
          user: "somebody", window: ConfirmWindow(messagesMax: 8, bytesMax: 1 << 20), fate: fate,
          logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        try await forger.open(broker.address, name: "forger", heartbeat: .seconds(15))
        let pump = Task { await forger.pump() }
        let refused = await kind {
          try await forger.publish([1], to: .head, messageID: "forged")
          try await forger.confirmed()
        }
        #expect(refused == .notAllowed)
        #expect(fate.error?.message.contains("user_id property set to 'somebody'") == true)
        await pump.value
        #expect(try broker.messages(in: "hub.head") == 0)
        await head.close()
      }
    }

    @Test("BRK-04: publishing to an exchange that is gone ends the session with its reason")
    func aMissingExchangeIsReported() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: ["north"]))
        let branch = try await broker.transport().open(.branch(office: "north"))
        try TestBroker.evaluate(
          "rabbit_exchange:delete(rabbit_misc:r(<<\"\(broker.address.virtualHost)\">>, exchange, <<\"hub.to-head\">>), false, <<\"hub\">>)."
        )
        let refused = await kind {
          try await branch.publish([1], to: .head, messageID: "lost")
          try await branch.confirmed()
        }
        #expect(refused == .queueMissing)
        #expect(await kind { _ = try await branch.next() } == .queueMissing)
        await branch.close()
        await head.close()
      }
    }

    @Test("BRK-04: a message that a queue refuses ends the session: it is sent again later")
    func aRefusedMessageEndsTheSession() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: []))
        try broker.makeRefusingQueue(boundTo: "hub.to-head")
        let refused = await kind {
          for number in 1...20 { try await head.publish([1], to: .head, messageID: "\(number)") }
          try await head.confirmed()
        }
        #expect(refused == .unreachable)
        await head.close()
      }
    }

    @Test func manyPublishersAtOnceLoseNothing() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport(confirmWindow: 8).open(.head(offices: []))
        try await withThrowingTaskGroup(of: Void.self) { group in
          for task in 0..<20 {
            group.addTask {
              for number in 0..<20 {
                let body = [UInt8](repeating: UInt8(task), count: number % 5 == 0 ? 200_000 : 100)
                try await head.publish(body, to: .head, messageID: "\(task)-\(number)")
              }
              try await head.confirmed()
            }
          }
          var next = [Int](repeating: 0, count: 20)
          for _ in 0..<400 {
            let delivery = try await within(.seconds(20)) { try await head.next() }
            let task = Int(delivery.body.first ?? 99)
            #expect(delivery.messageID == "\(task)-\(next[task])", "each task's messages come in its order")
            #expect(delivery.body.allSatisfy { Int($0) == task })
            next[task] += 1
            try await head.acknowledge(delivery.tag)
          }
          try await group.waitForAll()
        }
        await head.close()
      }
    }

    @Test("BRK-01: a message to an office without queue is confirmed all the same")
    func aConfirmSaysNothingOfAMissingQueue() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: []))
        try await head.publish([1], to: .office("north"), messageID: "nowhere")
        try await head.confirmed()
        await head.close()
      }
    }

    @Test func anOfficeNameThatIsNoneIsRefusedBeforeTheBrokerSeesIt() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        #expect(await kind { _ = try await transport.open(.branch(office: "a.b")) } == .notAllowed)
        #expect(await kind { _ = try await transport.open(.head(offices: ["A"])) } == .notAllowed)
        let head = try await transport.open(.head(offices: []))
        #expect(await kind { try await head.declareOffice("a b") } == .notAllowed)
        #expect(await kind { try await head.deleteOffice("../x") } == .notAllowed)
        #expect(await kind { try await head.publish([], to: .office(""), messageID: "x") } == .notAllowed)
        await head.close()
      }
    }

    @Test("BRK-09: an account that may configure nothing serves a branch, and head's request fails alone")
    func aBranchNeedsNoRightToConfigure() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: ["north"]))
        let url = try broker.addUser(
          "branch", configure: "^$", write: "^hub\\\\.to-head$", read: "^hub\\\\.office\\\\.north$")
        defer { try? broker.removeUser("branch") }
        let branch = try await broker.transport(url: url).open(.branch(office: "north"))
        try await branch.publish([1], to: .head, messageID: "up")
        try await branch.confirmed()
        #expect(await kind { try await branch.declareOffice("south") } == .notAllowed)
        #expect(await kind { try await branch.deleteOffice("north") } == .notAllowed)
        // It may not write dead letters either: the message is dropped and the session lives. Believed: the refusal
        // comes after the message. It comes in the middle of a large one, whose rest then ended the connection.
        for size in [4 << 20, 1] {
          try await head.publish([UInt8](repeating: 2, count: size), to: .branches, messageID: "\(size)")
          let delivery = try await within(.seconds(5)) { try await branch.next() }
          try await branch.reject(delivery.tag)
        }
        try await branch.publish([1], to: .head, messageID: "still here")
        try await branch.confirmed()
        #expect(try broker.messages(in: "hub.office.north") == 0)
        #expect(try broker.messages(in: "hub.dead") == 0)
        #expect(
          await kind { _ = try await broker.transport(url: url).open(.head(offices: [])) } == .notAllowed)
        await branch.close()
        await head.close()
      }
    }
  }
}

extension BrokerTests {
  @Suite(.serialized) struct Declaring {
    @Test("BRK-03: a queue deleted under its consumer ends the session")
    func aDeletedQueueEndsTheSession() async throws {
      try await TestBroker.with { broker in
        let transport = try broker.transport()
        let head = try await transport.open(.head(offices: ["north"]))
        let branch = try await transport.open(.branch(office: "north"))
        let waiting = Task { await kind { _ = try await branch.next() } }
        try await head.deleteOffice("north")
        #expect(try await within(.seconds(5)) { await waiting.value } == .queueMissing)
        #expect(await kind { try await branch.publish([1], to: .head, messageID: "x") } == .queueMissing)
        await branch.close()
        try await head.deleteOffice("north")
        try await head.declareOffice("north")
        let again = try await transport.open(.branch(office: "north"))
        try await head.publish([1], to: .branches, messageID: "bound")
        #expect(try await within(.seconds(5)) { try await again.next() }.messageID == "bound")
        await again.close()
        await head.close()
      }
    }

    @Test("BRK-15: a queue with other settings is kept, and works")
    func aQueueWithOtherSettingsIsKept() async throws {
      try await TestBroker.with { broker in
        let old = try await broker.transport(queueBytesMax: 1 << 20).open(.head(offices: ["north"]))
        try await old.publish([1], to: .branches, messageID: "kept")
        try await old.confirmed()
        await old.close()
        let new = try await broker.transport(queueBytesMax: 2 << 20).open(.head(offices: ["north", "south"]))
        try await new.declareOffice("north")
        #expect(try broker.messages(in: "hub.office.north") == 1)
        let branch = try await broker.transport().open(.branch(office: "north"))
        #expect(try await within(.seconds(5)) { try await branch.next() }.messageID == "kept")
        await branch.close()
        await new.close()
      }
    }

    @Test(
      "BRK-15: a queue of the other type refuses with its reason, or works",
      arguments: Topology.QueueType.allCases)
    func aQueueOfTheOtherTypeIsNoRiddle(type: Topology.QueueType) async throws {
      try await TestBroker.with { broker in
        let old = try await broker.transport(queueType: type).open(.head(offices: []))
        await old.close()
        let other: Topology.QueueType = type == .classic ? .quorum : .classic
        do {
          let new = try await broker.transport(queueType: other).open(.head(offices: []))
          try await new.publish([1], to: .head, messageID: "a")
          _ = try await within(.seconds(5)) { try await new.next() }
          await new.close()
        } catch let error as TransportError {
          #expect(error.kind == .notAllowed, "\(error)")
        }
      }
    }

    @Test("a look at the broker takes no message, declares nothing that is missing, and names what is otherwise")
    func aLookChangesNothing() async throws {
      try await TestBroker.with { broker in
        let quorum = try broker.transport(queueType: .quorum)
        let missing = await #expect(throws: TransportError.self) { _ = try await quorum.look(at: .head(offices: [])) }
        #expect(missing?.kind == .queueMissing)
        let bare = try await quorum.look(at: nil)
        #expect(bare.product == "RabbitMQ" && bare.isSupported && bare.queue == nil, "\(bare)")
        let head = try await quorum.open(.head(offices: ["north"]))
        try await head.publish([1], to: .office("north"), messageID: "kept")
        try await head.confirmed()
        for _ in 1...3 {
          let facts = try await quorum.look(at: .branch(office: "north"))
          #expect(facts.queue == .init(name: "hub.office.north", messages: 1, consumers: 0))
        }
        #expect(
          try await quorum.look(at: .head(offices: [])).queue
            == .init(name: "hub.head", type: .quorum, messages: 0, consumers: 1))
        let otherwise = try await broker.transport(queueBytesMax: 1 << 20).look(at: .head(offices: [])).queue
        #expect(
          otherwise?.type == nil && otherwise?.difference?.contains("inequivalent arg") == true, "\(otherwise as Any)")
        await head.close()
      }
    }

    @Test(
      "versions",
      arguments: [("3.9.27", false), ("3.10.8", true), ("4.1.0", true), ("10.0", true), ("3.10-rc.1", true)])
    func versions(version: String, isSupported: Bool) {
      #expect(BrokerFacts(product: "RabbitMQ", version: version).isSupported == isSupported)
    }

    @Test("BRK-02: what a full queue drops does not fill hub.dead")
    func whatAFullQueueDropsIsNoDeadLetter() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport(queueBytesMax: 100_000).open(.head(offices: ["north"]))
        for number in 1...200 {
          try await head.publish([UInt8](repeating: 1, count: 10_000), to: .branches, messageID: "\(number)")
        }
        try await head.confirmed()
        let branch = try await broker.transport().open(.branch(office: "north"))
        // The oldest went.
        let first = try await within(.seconds(5)) { try await branch.next() }
        #expect(Int(first.messageID ?? "") ?? 0 > 150)
        #expect(try broker.messages(in: "hub.office.north") <= 10)
        #expect(try broker.messages(in: "hub.dead") == 0)
        await branch.close()
        await head.close()
      }
    }

    @Test("BRK-08: a rejected message lies in hub.dead, whole, and does not come back")
    func aRejectedMessageIsADeadLetter() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: ["north"]))
        let branch = try await broker.transport().open(.branch(office: "north"))
        let bodies = [[UInt8]("damaged".utf8), [UInt8](repeating: 3, count: 300_000)]
        for (number, body) in bodies.enumerated() {
          try await head.publish(body, to: .branches, messageID: "bad-\(number)")
          let delivery = try await within(.seconds(5)) { try await branch.next() }
          try await branch.reject(delivery.tag)
        }
        #expect(try broker.messages(in: "hub.office.north") == 0)
        #expect(try broker.messages(in: "hub.dead") == 2)
        let fate = SessionFate()
        let reader = Consumer(fate: fate, logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() })
        try await reader.open(broker.address, name: "reader", heartbeat: .seconds(15))
        try await reader.consume("hub.dead", exclusively: false, prefetch: 5, backlogMax: nil)
        let pump = Task { await reader.pump() }
        for (number, body) in bodies.enumerated() {
          let dead = try await within(.seconds(5)) { try await reader.inbox.next() }
          #expect(dead.body == body)
          #expect(dead.messageID == "bad-\(number)")
          #expect(dead.contentEncoding == "zstd")
        }
        fate.end(TransportError(.closed, "done"))
        await pump.value
        await branch.close()
        await head.close()
      }
    }

    @Test("BRK-08: without hub.dead a rejected message is dropped, and the session lives")
    func withoutTheDeadQueueARejectedMessageIsDropped() async throws {
      try await TestBroker.with { broker in
        let head = try await broker.transport().open(.head(offices: []))
        try TestBroker.control(["delete_queue", "-p", broker.address.virtualHost, "hub.dead"])
        try await head.publish([1], to: .head, messageID: "bad")
        let delivery = try await within(.seconds(5)) { try await head.next() }
        try await head.reject(delivery.tag)
        try await head.publish([2], to: .head, messageID: "good")
        let next = try await within(.seconds(5)) { try await head.next() }
        #expect(next.messageID == "good")
        try await head.acknowledge(next.tag)
        await head.close()
        #expect(try broker.messages(in: "hub.head") == 0)
      }
    }
  }
}
