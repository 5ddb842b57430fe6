package import HubEngine
import NIOCore
import NIOHTTP1
import NIOPosix
import Synchronization

/// A few pages to read, over HTTP/1.1 (RFC 9112): GET and HEAD, no request body, nothing that changes anything.
package struct PageServer: Sendable {
  package struct Page: Sendable {
    package var status: Int
    package var contentType: String
    package var text: String

    package init(status: Int = 200, contentType: String = "text/plain; charset=utf-8", _ text: String) {
      self.status = status
      self.contentType = contentType
      self.text = text
    }
  }

  package typealias Pages = [String: @Sendable () async -> Page]

  /// More clients than this at once are sent away: a monitor needs one.
  static let connectionsMax = 64
  /// A client that is silent for this long is sent away.
  static let silenceMax: TimeAmount = .seconds(60)

  private let listener: any Channel

  /// Where it listens, with the port that was chosen.
  package var address: String {
    listener.localAddress.map { local in
      let host = local.ipAddress ?? ""
      return "\(host.contains(":") ? "[\(host)]" : host):\(local.port ?? 0)"
    } ?? "nowhere"
  }

  /// Listens and answers, until `run` is cancelled. Throws if the address cannot be had.
  package init(listeningAt address: ListenAddress, pages: Pages) async throws(HubError) {
    let clients = ClientCount()
    do {
      listener = try await ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
        .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        .serverChannelOption(.backlog, value: 64)
        .childChannelInitializer { channel in
          channel.eventLoop.makeCompletedFuture {
            try channel.pipeline.syncOperations.configureHTTPServerPipeline()
            try channel.pipeline.syncOperations.addHandlers(
              IdleStateHandler(allTimeout: Self.silenceMax), PageHandler(pages, clients))
          }
        }
        .bind(host: address.host, port: address.port).get()
    } catch {
      throw HubError(
        .usage, "cannot listen at \(address): \((error as? IOError)?.description ?? "\(error)")",
        hint: "give --http another address, as 127.0.0.1:9464")
    }
  }

  /// Returns when it is cancelled and listens no more.
  package func run() async throws {
    let listener = listener
    try await withTaskCancellationHandler {
      try await listener.closeFuture.get()
    } onCancel: {
      listener.close(promise: nil)
    }
  }
}

private final class ClientCount: Sendable {
  private let count = Mutex(0)

  /// The count after it.
  @discardableResult
  func add(_ more: Int) -> Int {
    count.withLock { count in
      count += more
      return count
    }
  }
}

/// One client. `HTTPServerPipelineHandler` before it hands on one request at a time.
private final class PageHandler: ChannelInboundHandler {
  typealias InboundIn = HTTPServerRequestPart
  typealias OutboundOut = HTTPServerResponsePart
  private typealias Page = PageServer.Page

  private let pages: PageServer.Pages
  private let clients: ClientCount
  private var request: HTTPRequestHead?

  init(_ pages: PageServer.Pages, _ clients: ClientCount) {
    self.pages = pages
    self.clients = clients
  }

  func channelActive(context: ChannelHandlerContext) {
    if clients.add(1) > PageServer.connectionsMax { context.close(promise: nil) }
  }

  func channelInactive(context: ChannelHandlerContext) { clients.add(-1) }

  func channelRead(context: ChannelHandlerContext, data: NIOAny) {
    switch unwrapInboundIn(data) {
    case .head(let head): request = head
    case .body:
      guard let head = request else { return }
      request = nil
      answer(Page(status: 413, "no request here has a body\n"), to: head, isLast: true, context)
    case .end:
      guard let head = request else { return }
      request = nil
      let page = context.eventLoop.makePromise(of: Page.self)
      page.completeWithTask { [pages] in await Self.page(for: head, of: pages) }
      page.futureResult.assumeIsolated().whenSuccess { page in
        guard context.channel.isActive else { return }
        self.answer(page, to: head, isLast: !head.isKeepAlive, context)
      }
    }
  }

  func userInboundEventTriggered(context: ChannelHandlerContext, event: Any) {
    guard event is IdleStateHandler.IdleStateEvent else { return context.fireUserInboundEventTriggered(event) }
    context.close(promise: nil)
  }

  /// A client that goes away in the middle of an answer is no fault of ours.
  func errorCaught(context: ChannelHandlerContext, error: any Error) { context.close(promise: nil) }

  private static func page(for request: HTTPRequestHead, of pages: PageServer.Pages) async -> Page {
    guard request.method == .GET || request.method == .HEAD else { return Page(status: 405, "GET or HEAD\n") }
    guard let page = pages[String(request.uri.prefix { $0 != "?" })] else {
      return Page(status: 404, "nothing here; there is \(pages.keys.sorted().joined(separator: ", "))\n")
    }
    return await page()
  }

  private func answer(_ page: Page, to request: HTTPRequestHead, isLast: Bool, _ context: ChannelHandlerContext) {
    let bytes = ByteBuffer(string: page.text)
    var head = HTTPResponseHead(
      version: request.version, status: HTTPResponseStatus(statusCode: page.status),
      headers: [
        "content-type": page.contentType, "content-length": "\(bytes.readableBytes)", "cache-control": "no-store",
        "x-content-type-options": "nosniff",
      ])
    if page.status == 405 { head.headers.add(name: "allow", value: "GET, HEAD") }
    if isLast { head.headers.add(name: "connection", value: "close") }
    context.write(wrapOutboundOut(.head(head)), promise: nil)
    if request.method != .HEAD { context.write(wrapOutboundOut(.body(.byteBuffer(bytes))), promise: nil) }
    let written = context.eventLoop.makePromise(of: Void.self)
    if isLast { written.futureResult.assumeIsolated().whenComplete { _ in context.close(promise: nil) } }
    context.writeAndFlush(wrapOutboundOut(.end(nil)), promise: written)
  }
}
