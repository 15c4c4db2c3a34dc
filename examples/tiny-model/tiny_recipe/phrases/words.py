"""Names, cities and words: the material of questions, requests and made-up things."""

from __future__ import annotations

NAMES = """Anna Ben Clara David Emma Felix Grace Henry Iris Jack Kate Leo Maria Noah Olivia Paul Rosa Sam Tina
Victor Wendy Yara Zoe Alice Bob Carol Dan Eva Frank Gina Hugo Ivan Julia Karl Lena Max Nina Oscar
Peter Quinn Ruth Simon Tom Uma Vera Xenia Yuri Zara Adam Bella Carlos Diana Erik Fiona George
Hannah Isaac Jane Kevin Laura Nora Otto Pia Ralf Sara Theo Ursula Viktor Wanda Amir Bruno Chloe
Dina Elias Freya Gustav Hilda Igor Jonas Kira Lukas Mila Niko Olga Pablo Rita Stefan Tara Ulrich
Vanessa Walter Ada Boris Celia Dora Edgar Zed John Mary James Linda Robert Susan Michael Lisa""".split()
WORDS = """apple river stone cloud garden window yellow paper silver rocket banana kitchen summer forest
pencil button castle dragon mirror coffee pepper bottle orange violin planet marble lemon tiger
basket candle bridge butter circle desert engine feather guitar hammer island jacket ladder magnet
needle ocean pocket rabbit saddle umbrella valley wagon zebra anchor bubble world 
 light green happy small quick brown train plane horse sugar bread night winter spring
 server token prompt manifest apply reload stream  velvet harbor pickle lantern meadow compass ribbon trumpet walnut pillow""".split()
COLOUR_NAMES = """red blue green yellow orange purple pink brown black white grey violet turquoise gold silver crimson""".split()
ANIMALS = """fox rabbit bear mouse cat dog owl hedgehog squirrel frog turtle wolf deer duck goat sheep pony hen
bee crow badger otter mole swan""".split()
CITIES = [
    *"""Paris London Berlin Rome Madrid Vienna Athens Dublin Oslo Lima Tokyo Cairo Moscow Seoul Hanoi Boston
Chicago Denver Seattle Dallas Miami Houston Toronto Sydney Melbourne Munich Hamburg Cologne Lyon
Nice Milan Naples Turin Venice Porto Lisbon Seville Valencia Geneva Zurich Basel Prague Krakow
Warsaw Gdansk Riga Vilnius Tallinn Helsinki Bergen Malmo Aarhus Ghent Antwerp Utrecht Leeds Bristol
York Oxford Cardiff Glasgow Cork Galway Osaka Kyoto Delhi Mumbai Lagos Accra Tunis Quito Austin
Phoenix Portland Atlanta Bilbao Granada Palermo Bologna Verona Linz Graz Salzburg Lugano Dresden
Leipzig Bremen Bonn Essen Nantes Lille Toulouse Bordeaux Marseille Strasbourg Reykjavik Brussels
Amsterdam Budapest""".split(),
    "New York",
    "San Francisco",
    "Los Angeles",
    "Mexico City",
    "Buenos Aires",
    "Cape Town",
    "Rio Grande",
    "San Diego",
    "Las Palmas",
    "Santa Fe",
    "Tel Aviv",
    "Abu Dhabi",
    "Kuala Lumpur",
    "Addis Ababa",
    "Porto Alegre",
    "Saint Louis",
    "Hong Kong",
    "New Delhi",
]
