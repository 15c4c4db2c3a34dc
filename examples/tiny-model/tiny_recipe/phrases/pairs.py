"""Pairs of words that the facts are about, and the order of numbers, days and months."""

from __future__ import annotations

from tiny_recipe.phrases.phrasing import Pairs, pairs

CAPITALS = pairs("""France=Paris, Germany=Berlin, Italy=Rome, Spain=Madrid, Portugal=Lisbon, Poland=Warsaw, Austria=Vienna,
Greece=Athens, Ireland=Dublin, Sweden=Stockholm, Norway=Oslo, Denmark=Copenhagen, Finland=Helsinki,
Iceland=Reykjavik, Belgium=Brussels, Hungary=Budapest, Romania=Bucharest, Bulgaria=Sofia,
Croatia=Zagreb, Serbia=Belgrade, Ukraine=Kyiv, Russia=Moscow, Turkey=Ankara, Egypt=Cairo, Kenya=Nairobi,
Morocco=Rabat, Ghana=Accra, Nigeria=Abuja, Ethiopia=Addis Ababa, Tunisia=Tunis, Algeria=Algiers,
Senegal=Dakar, India=New Delhi, China=Beijing, Japan=Tokyo, South Korea=Seoul, Thailand=Bangkok,
Vietnam=Hanoi, Nepal=Kathmandu, Iran=Tehran, Iraq=Baghdad, Jordan=Amman, Lebanon=Beirut,
Israel=Jerusalem, Canada=Ottawa, Mexico=Mexico City, Cuba=Havana, Peru=Lima, Chile=Santiago,
Argentina=Buenos Aires, Brazil=Brasilia, Colombia=Bogota, Ecuador=Quito, Uruguay=Montevideo,
Australia=Canberra, New Zealand=Wellington, the Netherlands=Amsterdam, Switzerland=Bern, the United
Kingdom=London, the United States=Washington, England=London, Scotland=Edinburgh, Latvia=Riga""")
OPPOSITES = pairs("""hot=cold, big=small, tall=short, fast=slow, up=down, left=right, day=night, black=white, good=bad,
happy=sad, old=young, new=old, open=closed, full=empty, hard=soft, wet=dry, light=dark, heavy=light,
early=late, first=last, near=far, high=low, rich=poor, strong=weak, loud=quiet, clean=dirty,
cheap=expensive, easy=difficult, thick=thin, wide=narrow, deep=shallow, true=false, yes=no, in=out,
on=off, top=bottom, front=back, begin=end, start=stop, push=pull, buy=sell, win=lose, love=hate,
come=go, give=take, ask=answer, sweet=sour, sharp=blunt, smooth=rough, brave=afraid, awake=asleep,
alive=dead, inside=outside, before=after, above=below, more=less, always=never, everything=nothing,
friend=enemy, war=peace, north=south, east=west, summer=winter""")
COLOURS = pairs("""the sky=blue, grass=green, snow=white, blood=red, a banana=yellow, a lemon=yellow, coal=black, the
sun=yellow, milk=white, a tomato=red, a strawberry=red, a carrot=orange, an orange=orange,
chocolate=brown, a leaf=green, a cucumber=green, the sea=blue, an elephant=grey, a flamingo=pink, a
raven=black, a frog=green, a polar bear=white, a fire engine=red, a plum=purple, a pea=green,
sand=yellow, wood=brown, salt=white, a cherry=red, a pumpkin=orange, a mouse=grey, coffee=brown, a
pig=pink""")
SOUNDS = pairs("""dog=woof, cat=meow, cow=moo, sheep=baa, duck=quack, pig=oink, horse=neigh, rooster=cock-a-doodle-doo,
frog=croak, bee=buzz, snake=hiss, owl=hoot, lion=roar, mouse=squeak, bird=tweet, donkey=hee-haw,
hen=cluck, crow=caw, wolf=howl""")
YOUNG = pairs("""dog=puppy, cat=kitten, cow=calf, sheep=lamb, horse=foal, pig=piglet, duck=duckling, hen=chick, goat=kid,
lion=cub, bear=cub, frog=tadpole, goose=gosling, deer=fawn, kangaroo=joey, swan=cygnet, owl=owlet,
elephant=calf""")
PLURALS = pairs("""child=children, man=men, woman=women, mouse=mice, foot=feet, tooth=teeth, goose=geese, person=people,
leaf=leaves, knife=knives, wolf=wolves, baby=babies, city=cities, box=boxes, sheep=sheep, fish=fish,
cat=cats, house=houses, party=parties""")
PAST = pairs("""go=went, see=saw, eat=ate, run=ran, take=took, give=gave, make=made, come=came, write=wrote, read=read,
sing=sang, drink=drank, buy=bought, think=thought, find=found, know=knew, say=said, sleep=slept,
swim=swam, begin=began, walk=walked, play=played""")
LEGS = pairs("""dog=four, cat=four, horse=four, cow=four, spider=eight, bird=two, ant=six, bee=six, snake=no, fish=no,
octopus=no, human=two, duck=two, lion=four""")
SIDES = pairs(
    """triangle=three, square=four, rectangle=four, pentagon=five, hexagon=six, octagon=eight, heptagon=seven"""
)
KINDS = pairs("""dog=animal, cat=animal, horse=animal, fox=animal, whale=animal, eagle=bird, sparrow=bird, penguin=bird,
salmon=fish, shark=fish, apple=fruit, pear=fruit, banana=fruit, cherry=fruit, carrot=vegetable,
onion=vegetable, cabbage=vegetable, rose=flower, tulip=flower, daisy=flower, oak=tree, pine=tree,
birch=tree, piano=instrument, guitar=instrument, violin=instrument, drum=instrument, hammer=tool,
saw=tool, screwdriver=tool, red=colour, blue=colour, green=colour, chair=piece of furniture, table=piece
of furniture, shirt=piece of clothing, hat=piece of clothing, car=vehicle, bus=vehicle, bicycle=vehicle,
gold=metal, iron=metal, copper=metal, football=sport, tennis=sport""")
CAPITALS_BACK = tuple(pair for pair in CAPITALS if pair[0] != "England")

NUMBER_WORDS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen
fifteen sixteen seventeen eighteen nineteen twenty""".split()
DAYS = """Monday Tuesday Wednesday Thursday Friday Saturday Sunday""".split()
MONTHS = """January February March April May June July August September October November December""".split()
ORDINALS = """first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth""".split()

DEFINITIONS: Pairs = (
    ("a computer", "a machine that follows programs"),
    ("a program", "a list of instructions for a computer"),
    ("a file", "a named piece of data on a disk"),
    ("a folder", "a place that holds files"),
    ("a server", "a program that answers requests"),
    ("a client", "a program that asks a server"),
    ("a network", "computers that are joined together"),
    ("a database", "a store of ordered data"),
    ("a token", "a small piece of text that a model reads or writes"),
    ("a language model", "a program that continues text"),
    ("a prompt", "the text that a model is given"),
    ("a byte", "a group of eight bits"),
    ("a bit", "a zero or a one"),
    ("a bug", "a mistake in a program"),
    ("a loop", "a part of a program that runs again and again"),
    ("a function", "a named part of a program"),
    ("a variable", "a name for a value"),
    ("a list", "a row of values"),
    ("JSON", "a text format for data"),
    ("YAML", "a text format for settings"),
    ("HTTP", "the protocol of the web"),
    ("Python", "a programming language"),
    ("an API", "a way for programs to talk to each other"),
    ("a password", "a secret word that opens an account"),
    ("a keyboard", "a board of keys for typing"),
    ("a screen", "a surface that shows pictures"),
    ("GGUF", "a file format for language models"),
    ("quantisation", "storing the numbers of a model with fewer bits"),
    ("a GPU", "a processor that does many small sums at once"),
    ("a CPU", "the main processor of a computer"),
    ("streaming", "sending an answer piece by piece"),
    ("a house", "a building where people live"),
    ("a school", "a place where people learn"),
    ("a library", "a place that lends books"),
    ("a hospital", "a place where ill people are treated"),
    ("a bakery", "a place where bread is made"),
    ("a doctor", "a person who treats ill people"),
    ("a teacher", "a person who helps others to learn"),
    ("a farmer", "a person who grows food"),
    ("a baker", "a person who makes bread"),
    ("a pilot", "a person who flies a plane"),
    ("a book", "a set of pages with text"),
    ("a clock", "a thing that shows the time"),
    ("a map", "a drawing of a place"),
    ("a bridge", "a way over a river or a road"),
    ("a river", "water that flows to the sea"),
    ("a lake", "water with land all around it"),
    ("an island", "land with water all around it"),
    ("a mountain", "a very high piece of land"),
    ("a desert", "a dry place with little rain"),
    ("a forest", "a place with many trees"),
    ("a volcano", "a mountain that can throw out fire"),
    ("rain", "water that falls from clouds"),
    ("snow", "frozen water that falls from clouds"),
    ("ice", "frozen water"),
    ("wind", "moving air"),
    ("the sun", "the star in the middle of our solar system"),
    ("the moon", "the body that circles the Earth"),
    ("a star", "a hot ball of gas far away"),
    ("a planet", "a large body that circles a star"),
    ("a week", "a time of seven days"),
    ("a year", "a time of twelve months"),
    ("a friend", "a person you like and trust"),
    ("a hat", "a thing you wear on your head"),
    ("a shoe", "a thing you wear on your foot"),
    ("a knife", "a tool that cuts"),
    ("a key", "a thing that opens a lock"),
    ("a ship", "a large boat"),
    ("a train", "a row of wagons on rails"),
)
