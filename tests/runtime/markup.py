"""A page's text without a browser, so without its script: elements as the standard library's parser finds them."""

from html.parser import HTMLParser

VOID = {"meta", "link", "img", "br"}


class Node:
    def __init__(self, name, attributes):
        self.name, self.attributes, self.children = name, dict(attributes), []

    def all(self, name):
        """Elements of a name below this one, in order."""
        for child in self.children:
            if isinstance(child, Node):
                if child.name == name:
                    yield child
                yield from child.all(name)

    def by_id(self, wanted):
        (found,) = (node for node in self.everything() if node.attributes.get("id") == wanted)
        return found

    def everything(self):
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.everything()

    @property
    def text(self):
        return "".join(child if isinstance(child, str) else child.text for child in self.children)


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Node("", ())]

    def handle_starttag(self, tag, attributes):
        node = Node(tag, attributes)
        self.open[-1].children.append(node)
        if tag not in VOID:
            self.open.append(node)

    def handle_endtag(self, tag):
        assert self.open.pop().name == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        self.open[-1].children.append(data)


def read_page(path):
    """The document of a file. Fails where an end tag closes another element than the last that was opened."""
    reader = _Reader()
    reader.feed(path.read_text("utf-8"))
    reader.close()
    (document,) = reader.open
    return document
